"""The stages of the pretraining, each callable by itself and resumable after a kill."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import CLIPTokenizer

from dreambooth3d.errors import ConfigError
from dreambooth3d.images import save_image, sheet
from dreambooth3d.photos.networks.layers import save_int8
from dreambooth3d.photos.networks.relative_views import RelativeViewNetwork
from dreambooth3d.photos.networks.subject_masks import SIZE, SubjectMaskNetwork
from dreambooth3d.photos.networks.weights import WEIGHTS
from dreambooth3d.runtime import pick_device, work_root
from dreambooth3d.toybox.pretraining import PACK_STAGES, STAGES, card, folders, measure
from dreambooth3d.toybox.pretraining.composites import Composer
from dreambooth3d.toybox.pretraining.cutout_views import cutout_view_sets
from dreambooth3d.toybox.pretraining.dataset import (
    Renders,
    cached_renders,
    caption_variants,
    make_renders,
    off_middle,
    scorer_captions,
    statement_captions,
)
from dreambooth3d.toybox.pretraining.loop import Schedule, StageRun
from dreambooth3d.toybox.pretraining.mesh_renders import (
    MESH_SHARE,
    MeshCaptioner,
    mesh_caption,
    mesh_caption_variants,
    mesh_statement_captions,
    pack_renders,
)
from dreambooth3d.toybox.pretraining.networks import SCORER_NAMES
from dreambooth3d.toybox.pretraining.packs import pack_backgrounds, pack_view_sets
from dreambooth3d.toybox.pretraining.photo_networks import mask_figures, train_masks, train_views, view_figures
from dreambooth3d.toybox.pretraining.scorers import train_scorer
from dreambooth3d.toybox.pretraining.unet import denoising_loss, train_unet
from dreambooth3d.toybox.pretraining.vae import reconstruction_psnr, train_decoder, train_vae
from dreambooth3d.toybox.pretraining.view_sets import ViewSets, toybox_view_sets
from dreambooth3d.toybox.sampling import UNSEEN_SEEDS

Network = TypeVar("Network", bound=nn.Module)

# Each model family sees its own renders.
FIRST_SEEDS = {"base": 0, "selector": 100_000, "judge": 200_000}
UNSEEN_FIRST_SEED = UNSEEN_SEEDS[0]
SCHEDULES = {
    "vae": Schedule(steps=16_000, learning_rate=1.5e-3, weight_decay=1e-4),
    "unet": Schedule(steps=40_000, learning_rate=1.2e-3, ema=5e-4),
    "selector": Schedule(steps=20_000, learning_rate=1.2e-3, weight_decay=0.05),
    "judge": Schedule(steps=20_000, learning_rate=1.2e-3, weight_decay=0.05),
    "masks": Schedule(steps=12_000, learning_rate=1.5e-3, weight_decay=0.03, graphed=False),
    "views": Schedule(steps=20_000, learning_rate=1.5e-3, weight_decay=0.15),
}
CONTINUED = {
    "vae": Schedule(steps=6_000, learning_rate=7e-4, weight_decay=1e-4),
    "unet": Schedule(steps=24_000, learning_rate=6e-4, ema=5e-4),
    "selector": Schedule(steps=12_000, learning_rate=6e-4, weight_decay=0.05),
    "judge": Schedule(steps=12_000, learning_rate=6e-4, weight_decay=0.05),
    "masks": Schedule(steps=12_000, learning_rate=6e-4, weight_decay=0.03, graphed=False),
    "views": Schedule(steps=20_000, learning_rate=6e-4, weight_decay=0.15),
}
"""Schedules of the stages that start from trained models."""
START_SHARE = {"selector": 0.4, "judge": 0.4, "masks": 0.5}
"""Of the weights that a stage starts from in those that it saves, so that what they knew is not lost.

Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"."""
TOYBOX_THINGS = 120
"""Subjects of the toybox among the things of a pack."""
_TOYBOX_SEED = 70
_CARD_RENDERS = 4000


@dataclass(frozen=True)
class Pretraining:
    """What the stages share.

    Attributes:
        models: the folder to write into.
        renders: training renders per model family.
        device: where to train.
        pack: folder of a pack of training data, pictures of which are mixed with the renders; None takes none.
        start: folder of trained models from which to continue; None starts from random weights.
        steps: optimiser steps of each stage; None takes those of `SCHEDULES` or `CONTINUED`.
        minutes: shorten each stage to about this long; None does not.
    """

    models: Path
    renders: int
    device: torch.device
    pack: Path | None = None
    start: Path | None = None
    steps: int | None = None
    minutes: float | None = None

    def stage(self, name: str) -> StageRun:
        """How and where a stage trains."""
        default = (CONTINUED if self.start else SCHEDULES).get(name, SCHEDULES[name])
        schedule = replace(default, steps=self.steps or default.steps, minutes=self.minutes)
        data = "" if self.pack is None or name in PACK_STAGES else "mixed"
        return StageRun(schedule, work_root() / "pretrain" / data, self.device)

    @property
    def needed_pack(self) -> Path:
        """The pack, for stages that cannot do without."""
        return self.pack or Path("pack")

    def with_meshes(self, renders: Renders, seed: int, captioner: MeshCaptioner) -> Renders:
        """Renders of the toybox and, where there is a pack, pictures of its meshes, which are `MESH_SHARE` of all."""
        if self.pack is None:
            return renders
        count = round(len(renders) * MESH_SHARE / (1 - MESH_SHARE))
        tokenizer = folders.toybox_tokenizer()
        meshes = pack_renders(self.pack, "train", seed, tokenizer, captioner, self.device, count)
        return Renders.cat([off_middle(renders, seed), meshes])


@cache
def _base_renders(job: Pretraining) -> Renders:
    count, seed, device = job.renders, FIRST_SEEDS["base"], job.device

    def make() -> Renders:
        return make_renders(count, seed, folders.toybox_tokenizer(), caption_variants, device)

    path = work_root() / "pretrain" / f"renders-{count}-{_world_key()}.safetensors"
    return job.with_meshes(cached_renders(path, make, device), seed, mesh_caption_variants)


def _world_key() -> str:
    """Renders of an older world must not be taken for this one's."""
    sources = sorted(Path(__file__).parent.parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def pretrain_vae(job: Pretraining) -> None:
    """Train and save the autoencoder, or only its decoder where there is one to start from."""
    renders = _base_renders(job)
    if job.start is None:
        vae = train_vae(renders, job.stage("vae"))
    else:
        vae = train_decoder(renders, folders.load_vae(job.start, job.device), job.stage("vae"))
    folders.save_vae(vae, job.models)


def pretrain_unet(job: Pretraining) -> None:
    """Train denoiser and text encoder, and save the complete base model."""
    vae, tokenizer = folders.load_vae(job.models, job.device), folders.toybox_tokenizer()
    start = folders.enlarged_base_model(job.start, tokenizer) if job.start else None
    unet, text_encoder = train_unet(_base_renders(job), vae, tokenizer, job.stage("unet"), start)
    folders.save_base_model(vae, unet, text_encoder, job.models)


def pretrain_scorer(name: str, job: Pretraining) -> None:
    """Train and save one scorer, on renders of its own in which all classes, patterns and accessories occur."""
    tokenizer, seed = folders.toybox_tokenizer(), FIRST_SEEDS[name]
    start = folders.enlarged_scorer(name, job.start, tokenizer) if job.start else None
    renders = make_renders(job.renders, seed, tokenizer, scorer_captions, job.device, reserved=True)
    renders = job.with_meshes(renders, seed, mesh_statement_captions)
    before = copy.deepcopy(start)
    scorer = train_scorer(name, renders, tokenizer, job.stage(name), start)
    folders.save_scorer(averaged(scorer, before, START_SHARE[name]), name, job.models)


@torch.no_grad()
def averaged(network: Network, before: nn.Module | None, share: float) -> Network:
    """A network whose weights are moved by a share towards what they were before its training; unchanged without."""
    if before is not None:
        for trained, started in zip(network.parameters(), before.parameters(), strict=True):
            trained.lerp_(started.to(trained), share)
    return network


def _things(job: Pretraining) -> ViewSets:
    """A pack's meshes for training, and some subjects of the toybox."""
    others = pack_view_sets(job.needed_pack, "train", job.device)
    return ViewSets.cat([others, toybox_view_sets(TOYBOX_THINGS, _TOYBOX_SEED, job.device)])


def _weights(models: Path, stage: str) -> Path:
    """The folder with a stage's weights.

    Raises:
        ConfigError: they are not there.
    """
    folder = models / stage
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"toybox pretrain: {folder / WEIGHTS} is not there, from which {stage} was to continue. Name a folder of "
            "models with --from, such as models."
        )
    return folder


def pretrain_masks(job: Pretraining) -> None:
    """Train and save the network that finds what the photos of a set share, and print how well on unseen things."""
    start = None if job.start is None else SubjectMaskNetwork.load(_weights(job.start, "masks"))
    network = SubjectMaskNetwork() if start is None else copy.deepcopy(start)
    things = ViewSets.cat([_things(job), cutout_view_sets(job.needed_pack, "train", job.device)])
    train_masks(network, things, pack_backgrounds(job.needed_pack, "train", job.device), job.stage("masks"))
    averaged(network, start, START_SHARE["masks"])
    save_int8(network, job.models / "masks" / WEIGHTS)
    places = pack_backgrounds(job.needed_pack, "test", job.device)
    for name, unseen in (("meshes", pack_view_sets), ("cutouts", cutout_view_sets)):
        composer = Composer(unseen(job.needed_pack, "test", job.device), places, SIZE)
        print(json.dumps({name: mask_figures(network, composer)}, indent=1))


def pretrain_views(job: Pretraining) -> None:
    """Train and save the network that tells from where a subject is seen, and print how well on unseen meshes."""
    network = RelativeViewNetwork() if job.start is None else RelativeViewNetwork.load(_weights(job.start, "views"))
    train_views(network, _things(job), job.stage("views"))
    save_int8(network, job.models / "views" / WEIGHTS)
    print(json.dumps(view_figures(network, pack_view_sets(job.needed_pack, "test", job.device)), indent=1))


def measure_models(
    models: Path,
    device: torch.device,
    renders: int = 4000,
    samples: int = 768,
    pack: Path | None = None,
    before: Path | None = None,
) -> dict[str, float]:
    """Measure all bundled models on unseen renders, write the card, and return the figures.

    Args:
        models: folder of the models.
        device: where to measure.
        renders: how many unseen ones.
        samples: how many to draw from the base model.
        pack: folder of a pack, on whose test meshes to measure too.
        before: folder of the models that these were continued from, to be measured on the same test meshes.
    """
    tokenizer = folders.toybox_tokenizer()
    unseen = make_renders(renders, UNSEEN_FIRST_SEED, tokenizer, statement_captions, device)
    figures = {"vae_psnr_db": reconstruction_psnr(folders.load_vae(models, device), unseen.images)}
    unseen = make_renders(renders, UNSEEN_FIRST_SEED + 1000, tokenizer, statement_captions, device, reserved=True)
    for name in SCORER_NAMES:
        scorer, tokenizer = folders.load_scorer(name, models, device), folders.load_tokenizer(models / name)
        accuracy = measure.scorer_accuracy(scorer, tokenizer, unseen)
        accuracy["r_precision"] = measure.subject_r_precision(scorer, tokenizer)
        figures.update({f"{name}_{attribute}": value for attribute, value in accuracy.items()})
    pipeline = folders.load_base_model(models, device)
    judge, tokenizer = folders.load_scorer("judge", models, device), folders.load_tokenizer(models / "judge")
    obeyed, images, _ = measure.sample_obedience(pipeline, judge, tokenizer, samples)
    figures.update({f"obeyed_{attribute}": value for attribute, value in obeyed.items()})
    if pack is not None:
        figures |= mesh_figures(models, pack, device)
        earlier = mesh_figures(before, pack, device) if before and before.resolve() != models.resolve() else {}
        figures |= {f"{name}_before": value for name, value in earlier.items()}
    card.write(models, figures, {"renders": renders, "samples": samples, "machine": _machine(device)})
    save_image(sheet(images[:96], 16), models / "samples.webp")
    return figures


def mesh_figures(models: Path, pack: Path, device: torch.device) -> dict[str, float]:
    """What models make of pictures of a pack's test meshes: the same pictures, noise and timesteps for all models."""

    def unseen(tokenizer: CLIPTokenizer) -> Renders:
        return pack_renders(pack, "test", UNSEEN_FIRST_SEED, tokenizer, lambda look, _: [mesh_caption(look)], device)

    pipeline = folders.load_base_model(models, device)
    renders = unseen(pipeline.tokenizer)
    figures = {
        "mesh_vae_psnr_db": reconstruction_psnr(pipeline.vae, renders.images),
        "mesh_unet_loss": denoising_loss(pipeline, renders, renders.tokens[:, 0]),
    }
    for name in SCORER_NAMES:
        scorer, tokenizer = folders.load_scorer(name, models, device), folders.load_tokenizer(models / name)
        accuracy = measure.mesh_accuracy(scorer, tokenizer, renders)
        figures |= {f"{name}_mesh_{attribute}": value for attribute, value in accuracy.items()}
    return figures


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, torch {torch.__version__}"


def pretrain(
    stages: Sequence[str],
    models: Path,
    *,
    renders: int = 120_000,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    pack: Path | None = None,
    start: Path | None = None,
    samples: int = 768,
) -> None:
    """Run stages in order.

    Args:
        stages: some of `STAGES` and `PACK_STAGES`.
        models: the folder to write into.
        renders: training renders per model family.
        steps: optimiser steps of each stage; the defaults are in `SCHEDULES`.
        minutes: shorten each stage to about this long.
        device: auto, cpu or cuda.
        pack: folder of a pack of training data: `PACK_STAGES` need one, by default `pack`; the others mix in pictures
            of its meshes, and the card measures on those kept for tests.
        start: folder of trained models that the base model's and the scorers' stages continue from. Of the autoencoder
            only the decoder is trained then; new words start from related ones.
        samples: that the card is made from.

    Raises:
        ConfigError: a stage is unknown, there is no pack for it, or `start` has no models.
    """
    known = (*STAGES, *PACK_STAGES)
    unknown = sorted(set(stages) - set(known))
    if unknown:
        raise ConfigError(f"toybox pretrain: unknown stage {unknown[0]!r}. Choose from {', '.join(known)}.")
    if start is not None and not (start / folders.BASE_MODEL).is_dir():
        raise ConfigError(f"toybox pretrain: {start} has no models to continue from. Name their folder with --from.")
    models.mkdir(parents=True, exist_ok=True)
    job = Pretraining(models, renders, pick_device(device), pack, start, steps, minutes)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    train: dict[str, Callable[[Pretraining], None]] = {"vae": pretrain_vae, "unet": pretrain_unet}
    train |= {name: partial(pretrain_scorer, name) for name in SCORER_NAMES}
    train |= {"masks": pretrain_masks, "views": pretrain_views}
    for stage in stages:
        started = time.monotonic()
        if stage == "card":
            count = min(renders, _CARD_RENDERS)
            print(json.dumps(measure_models(models, job.device, count, samples, pack, start), indent=1))
        else:
            train[stage](job)
        print(f"stage {stage}: {time.monotonic() - started:.0f} s", flush=True)
