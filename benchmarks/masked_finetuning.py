"""What background replacement and the masked loss are worth in fine-tuning, each alone, both and neither.

Usage: python -m benchmarks.masked_finetuning FOLDER... [--toybox taxi,cup] [--seeds 0,1] [--workers 8] [--quick]

FOLDER is a photo set, or holds some. A set is photos with a subject.yaml, or photos/ with a subject.json that says
`class_noun`, and masks/NAME.png where the truth is known. The base model is fine-tuned on each set as in
configs/bench/dreambooth3d.yaml, and draws samples under the subject's prompt and under captions that it was not tuned
on. All pictures of its world have smooth backgrounds: what else it draws behind a subject, the photos have taught it.

- Colour distance: sliced Wasserstein distance in CIELAB between the subject's pixels in the samples and in the photos,
  times two, so that a shift of all colours by d counts as d. 0 is the same colours as often; what one photo is from the
  others bounds it from below (`photos`), the base model's samples of the class from above (`base model`).
- Plain: share of the samples in which a subject is told from a smooth background.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import wasserstein_distance
from skimage.color import rgb2lab
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.quality.sharing import shared_gpu
from dreambooth3d.artifacts import BaseModelRef, DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, sample
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.images import antialiased, save_image, sheet, to_pil
from dreambooth3d.photos.check import check_photos
from dreambooth3d.photos.masks.choose import choose_masks, mask_models
from dreambooth3d.photos.masks.smooth_background import SmoothBackground
from dreambooth3d.photos.masks.source import Mask, SourcePhoto
from dreambooth3d.photos.quality import pad_mask
from dreambooth3d.photos.subject import photo_files
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime, pick_device
from dreambooth3d.toybox.subjects import SUBJECTS, write_subject

PRESET = Path(__file__).resolve().parents[1] / "configs" / "bench" / "dreambooth3d.yaml"
OUT = Path("outputs/benchmarks/masked_finetuning")
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "neither": {"background_augmentation": False, "loss_outside_mask": 1.0},
    "background replacement": {"background_augmentation": True, "loss_outside_mask": 1.0},
    "masked loss": {"background_augmentation": False},
    "both": {"background_augmentation": True},
}
QUICK: Mapping[str, Any] = {"steps": 40, "class_images": 8, "class_inference_steps": 8}
PHOTOS, BASE = "photos", "base model"
PLAIN_ENDINGS = ("wearing a red hat", "wearing a green bow", "wearing a yellow flag", "wearing a blue flower")
"""Captions as the base model has learned them before smooth backgrounds."""
INSIDE = 0.9
"""Share of a pixel from which it is the subject's."""
DIRECTIONS = 64
SAMPLES_TOGETHER = 8
"""Samples in which the mask network looks for one subject at a time."""
SHOWN = 8


@dataclass(frozen=True)
class PhotoFolder:
    """A photo set on disk.

    Attributes:
        name: as the tables show it.
        photos: folder of the photos.
        class_noun: what the subject is; None where a subject.yaml there says it.
        masks: folder of true masks of the photos' names, or None.
    """

    name: str
    photos: Path
    class_noun: str | None = None
    masks: Path | None = None


@dataclass(frozen=True)
class Job:
    """One set with one seed.

    Attributes:
        folder: the set.
        seed: of everything random.
        config: the fine-tuning's.
        samples: how many images are drawn under each kind of prompt.
        device: cpu or cuda.
        threads: of the CPU.
        work: folder for checkpoints.
    """

    folder: PhotoFolder
    seed: int
    config: FinetuneConfig
    samples: int
    device: str
    threads: int
    work: Path


@dataclass(frozen=True)
class Found:
    """What a job has measured.

    Attributes:
        name, seed: of the job.
        rows: one per variant: variant, masked (whether the masked loss has an effect), colour, mean_colour and plain
            under the subject's prompt, caption_colour and caption_plain under other captions.
        shown: uint8 (variants, `SHOWN` * 2, size, size, 3) the first samples of each kind, in the order of the rows.
    """

    name: str
    seed: int
    rows: list[dict[str, Any]]
    shown: NDArray[np.uint8]


def find_sets(folder: Path) -> Iterator[PhotoFolder]:
    """The set that a folder is, or those that it holds.

    Raises:
        ConfigError: it is none, and holds none.
    """
    found = [each for path in (folder, *sorted(folder.glob("*/"))) if (each := _as_set(path))]
    if not found:
        raise ConfigError(f"{folder}: is no photo set, and holds none. A set has a subject.yaml or a subject.json.")
    yield from found


def _as_set(folder: Path) -> PhotoFolder | None:
    described, name = folder / "subject.json", "/".join(folder.resolve().parts[-2:])
    if described.is_file():
        masks = folder / "masks"
        noun = json.loads(described.read_text())["class_noun"]
        return PhotoFolder(name, folder / "photos", noun, masks if masks.is_dir() else None)
    return PhotoFolder(name, folder) if (folder / "subject.yaml").is_file() else None


def finetuning_config(quick: bool, steps: int | None = None) -> FinetuneConfig:
    """The benchmark's settings, with one checkpoint at the end."""
    values: dict[str, Any] = yaml.safe_load(PRESET.read_text())["parameters"]["finetune_dreambooth"]
    if quick:
        values.update(QUICK)
    if steps:
        values["steps"] = steps
    return FinetuneConfig(**values | {"checkpoint_every": values["steps"], "sample_every_checkpoint": False})


def color_distance(first: Float[NDArray, "n 3"], second: Float[NDArray, "m 3"]) -> float:
    """Sliced Wasserstein distance between colours in CIELAB, times two: of a pure shift its length. NaN without any.

    Source: Rabin et al., "Wasserstein Barycenter and Its Application to Texture Mixing", SSVM 2011.
    """
    if not (len(first) and len(second)):
        return float("nan")
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # The directions' mean share of a shift is a half; dividing by that of those drawn makes it exact on average.
    share = np.abs(directions).mean()
    return float(np.mean([wasserstein_distance(first @ way, second @ way) for way in directions]) / share)


def subject_colors(images: Float[Tensor, "n 3 h w"], masks: Float[Tensor, "n h w"]) -> list[Float[NDArray, "pixels 3"]]:
    """The subject's pixels in CIELAB, image by image."""
    lab = rgb2lab(images.permute(0, 2, 3, 1).cpu().numpy())
    return [each[mask >= INSIDE] for each, mask in zip(lab, masks.cpu().numpy(), strict=True)]


def together(colors: Sequence[NDArray], per_image: int = 1000) -> NDArray:
    """(pixels, 3) of several images, as many of each."""
    rng = np.random.default_rng(0)
    drawn = [each[rng.integers(len(each), size=per_image)] for each in colors if len(each)]
    return np.concatenate(drawn) if drawn else np.empty((0, 3))


def sample_masks(images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n h w"], list[bool]]:
    """Where samples show their subject, found as in photos; and which of them show one before a smooth background."""
    pixels = [np.asarray(to_pil(image)) for image in images]
    photos = [SourcePhoto(Path(f"{index}.png"), each) for index, each in enumerate(pixels)]
    config = PhotosConfig()
    models = mask_models(config).model_copy(update={"rembg": ""})
    found: list[Mask] = []
    for start in range(0, len(photos), SAMPLES_TOGETHER):
        chosen = choose_masks(photos[start : start + SAMPLES_TOGETHER], config, models)
        found += [each.mask.mask for each in chosen]
    smooth = SmoothBackground().masks(photos)
    plain = [mask is not None and mask.trusted for mask in smooth]
    return torch.from_numpy(np.stack(found)).float() / 255, plain


def measure(job: Job) -> Found:
    """Fine-tune on one set in every way, and measure the samples of each."""
    torch.set_num_threads(job.threads)
    device = pick_device(job.device)
    photos, base = _read(job), resolve(BaseModelConfig())
    size = load_components(base, "cpu").image_size
    truth = [each for each in subject_colors(photos.resized(size), _true_masks(job.folder, photos, size)) if len(each)]
    alone = [color_distance(one, together(truth[:index] + truth[index + 1 :])) for index, one in enumerate(truth)]
    rows: list[dict[str, Any]] = [{"variant": PHOTOS, "colour": float(np.mean(alone)) if alone else float("nan")}]
    shown = [antialiased(photos.resized(size), size)[[i % len(photos.images) for i in range(2 * SHOWN)]]]
    masked = bool((photos.trusted & ~photos.before_smooth_background).any())
    for variant in (BASE, *VARIANTS):
        if variant in ("masked loss", "both") and not masked:
            continue
        images = _draw(job, photos, base, variant, device)
        shown.append(torch.cat([part[:SHOWN] for part in images.split(job.samples)]))
        rows.append({"variant": variant, "masked": masked} | _scores(images, truth, job.samples))
    pixels = (torch.stack([_filled(each) for each in shown]) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return Found(job.folder.name, job.seed, rows, pixels)


def _filled(images: Tensor) -> Tensor:
    """(2 * SHOWN, 3, h, w): white where there are fewer samples than are shown."""
    missing = 2 * SHOWN - len(images)
    return torch.cat([images, images.new_ones(missing, *images.shape[1:])])


def _read(job: Job) -> SubjectPhotos:
    """The photos, masked and with their views named, as a run has them."""
    config = PhotosConfig(dir=str(job.folder.photos), class_noun=job.folder.class_noun)
    log = StepLog("validate_photos")
    photos = check_photos(config, "untracked", mask_models(config), Runtime(log, job.work, progress=False))
    return name_photo_views(photos, ClipScorer.load(ScorersConfig().selector))


def _true_masks(folder: PhotoFolder, photos: SubjectPhotos, size: int) -> Float[Tensor, "n {size} {size}"]:
    """The true masks where they are known, else those found."""
    if folder.masks is None:
        return photos.masks_resized(size) * photos.trusted[:, None, None]
    names = [folder.masks / f"{path.stem}.png" for path in photo_files(folder.photos)]
    whole = [torch.from_numpy(pad_mask(np.asarray(Image.open(name).convert("L")))).float() / 255 for name in names]
    return torch.cat([antialiased(mask[None, None], size)[0] for mask in whole])


def _draw(
    job: Job, photos: SubjectPhotos, base: BaseModelRef, variant: str, device: torch.device
) -> Float[Tensor, "n 3 h w"]:
    """Samples of a model that is fine-tuned in one way, or not at all: under its prompt, then under other captions."""
    checkpoint: DreamBoothCheckpoint | None = None
    name = photos.class_prompt if variant == BASE else photos.instance_prompt
    if variant != BASE:
        config = job.config.model_copy(update=dict(VARIANTS[variant]))
        folder = Path(tempfile.mkdtemp(dir=job.work))
        made = finetune(photos, base, config, job.seed, Runtime(StepLog("finetune"), folder, device, progress=False))
        checkpoint = made.checkpoints[max(made.steps)]
    prompts = [name] * job.samples
    prompts += [f"{name} {PLAIN_ENDINGS[index % len(PLAIN_ENDINGS)]}" for index in range(job.samples)]
    components = load_components(base, device, checkpoint)
    return sample(components, prompts, Sampling(guidance_scale=4.0, steps=20, seed=job.seed)).cpu()


def _scores(images: Tensor, truth: Sequence[NDArray], count: int) -> dict[str, float]:
    """The figures of samples, `count` under the subject's prompt and as many under other captions."""
    known, scores = together(truth), {}
    for prefix, part in zip(("", "caption_"), images.split(count), strict=True):
        masks, plain = sample_masks(part)
        colors = together(subject_colors(part, masks))
        scores[f"{prefix}colour"] = color_distance(colors, known)
        scores[f"{prefix}mean_colour"] = _mean_distance(colors, known)
        scores[f"{prefix}plain"] = float(np.mean(plain))
    return scores


def _mean_distance(first: NDArray, second: NDArray) -> float:
    """CIE76 difference of mean colours."""
    if not (len(first) and len(second)):
        return float("nan")
    return float(np.linalg.norm(first.mean(0) - second.mean(0)))


COLUMNS = {
    "colour": "colour distance", "mean_colour": "of the means", "plain": "plain",
    "caption_colour": "colour distance, other captions", "caption_plain": "plain, other captions",
}  # fmt: skip


def report(found: Sequence[Found], about: str) -> str:
    """The tables as Markdown: means over sets before other than smooth backgrounds, over the rest, and each set."""
    rows = pd.DataFrame([{"set": each.name, "seed": each.seed} | row for each in found for row in each.rows])
    rows["masked"] = rows.groupby("set")["masked"].transform("max").astype(bool)
    seeds = sorted({each.seed for each in found})
    parts = ["# Masked fine-tuning", f"`python -m benchmarks.masked_finetuning`, {about}, seeds {seeds}."]
    for masked, title in ((True, "Before anything, masks trusted"), (False, "Before smooth backgrounds")):
        chosen = rows[rows["masked"] == masked]
        if len(chosen):
            parts += [f"## {title}: {chosen['set'].nunique()} sets", _table(chosen, ["variant"])]
    parts += ["## Each set", _table(rows, ["set", "variant"])]
    return "\n\n".join(parts) + "\n"


def _table(rows: pd.DataFrame, by: list[str]) -> str:
    """Means as a Markdown table, variants in their usual order."""
    names = list(COLUMNS)
    means = rows.groupby(by, sort=False)[names].mean(numeric_only=True)
    lines = ["| " + " | ".join([*by, *COLUMNS.values()]) + " |", "|" + "---|" * (len(by) + len(names))]
    for key, row in means.iterrows():
        cells = [*(key if isinstance(key, tuple) else (key,))]
        for name in names:
            text = f"{row[name]:.0%}" if name.endswith("plain") else f"{row[name]:.1f}"
            cells.append("" if np.isnan(row[name]) else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_pictures(found: Sequence[Found], folder: Path) -> None:
    """One sheet per set and seed: a row of photos, then a row of samples per variant."""
    for each in found:
        images = torch.from_numpy(each.shown).permute(0, 1, 4, 2, 3).float().flatten(0, 1) / 255
        save_image(sheet(images, 2 * SHOWN), folder / f"{each.name.replace('/', '-')}-{each.seed}.png")


def run_all(jobs: Sequence[Job], workers: int, device: str) -> Iterator[Found]:
    """Work through the jobs, side by side where asked for; a failed one does not take the others with it."""
    if workers == 1:
        yield from map(measure, jobs)
        return
    with (
        shared_gpu(device == "cuda"),
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=_be_quiet) as pool,
    ):
        names: dict[Future[Found], str] = {pool.submit(measure, job): job.folder.name for job in jobs}
        for done in as_completed(names):
            if (error := done.exception()) is not None:
                print(f"{names[done]}: FAILED {error!r}", flush=True)
                continue
            yield done.result()


def _be_quiet() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def main() -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--toybox", default="", help=f"toybox subjects, separated by commas: {', '.join(SUBJECTS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, help="of each fine-tuning: 400, or 40 with --quick")
    parser.add_argument("--samples", type=int, help="images under each kind of prompt: 32, or 8 with --quick")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads per process")
    parser.add_argument("--quick", action="store_true", help="few steps and samples, on a CPU")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    device = "cpu" if given.quick or not torch.cuda.device_count() else "cuda"
    _be_quiet()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        found = _measured(given, device, Path(work))
    about = f"{machine(device)}, {finetuning_config(given.quick, given.steps).steps} steps"
    text = report(found, about)
    (given.out / "masked_finetuning.md").write_text(text)
    write_pictures(found, given.out)
    print(text)


def _measured(given: argparse.Namespace, device: str, work: Path) -> list[Found]:
    """All jobs' figures, printed as they come."""
    sets = [each for folder in given.folders for each in find_sets(folder)]
    toybox = [name for name in given.toybox.split(",") if name]
    sets += [PhotoFolder(f"toybox/{name}", write_subject(name, work / "toybox")) for name in toybox]
    samples = given.samples or (8 if given.quick else 32)
    config = finetuning_config(given.quick, given.steps)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    jobs = [Job(each, seed, config, samples, device, given.threads, work) for seed in seeds for each in sets]
    found, started = [], time.time()
    for each in run_all(jobs, given.workers, device):
        found.append(each)
        shown = ", ".join(f"{row['variant']} {row['colour']:.1f}" for row in each.rows)
        print(f"{each.name}, seed {each.seed}: colour distance {shown} ({time.time() - started:.0f} s)", flush=True)
        lines = [json.dumps({"set": one.name, "seed": one.seed} | row) for one in found for row in one.rows]
        (given.out / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return sorted(found, key=lambda each: (each.name, each.seed))


if __name__ == "__main__":
    main()
