"""What the model card states: measured on renders and samples that no training saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from dreambooth3d.cameras import VIEW_WORDS, turntable_cameras
from dreambooth3d.toybox.captions import GENERIC_NOUNS, caption, published_captions
from dreambooth3d.toybox.pretraining.dataset import NOUNS, UNKNOWN, Probes, Renders, tokenize
from dreambooth3d.toybox.pretraining.networks import IMAGE_SIZE
from dreambooth3d.toybox.pretraining.scorers import image_features, text_features
from dreambooth3d.toybox.recipes import COLOUR_NAMES, TRAINING_CLASSES
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.sampling import CLASS_NAMES
from dreambooth3d.toybox.subjects import SUBJECTS

BORDER_MARGIN_DEG = 15.0


@dataclass(frozen=True)
class Judgement:
    """Predicted indices (n,) of class, kind, main colour and view.

    The class is among the toybox's, the kind among the generic nouns; colour and view are those of the given noun.
    """

    class_index: Tensor
    kind_index: Tensor
    colour_index: Tensor
    view_index: Tensor


def away_from_borders(azimuth_deg: Tensor, elevation_deg: Tensor, margin_deg: float = BORDER_MARGIN_DEG) -> Tensor:
    """(n,) whether a view word is beyond doubt: off the 45-degree borders, and off the overhead border."""
    azimuth = torch.remainder(azimuth_deg + 180, 360) - 180
    distance = torch.minimum((azimuth.abs() - 45).abs(), (azimuth.abs() - 135).abs())
    overhead = elevation_deg > 60 + margin_deg / 2
    return overhead | ((distance > margin_deg) & (elevation_deg < 60 - margin_deg / 2))


@torch.no_grad()
def judge(model: CLIPModel, tokenizer: CLIPTokenizer, images: Tensor, class_index: Tensor) -> Judgement:
    """Ask a scorer for class, colour and view.

    Args:
        images: (n, 3, 64, 64) in [0, 1].
        class_index: (n,) into `NOUNS`, what colour and view captions name.
    """
    probes = Probes.build(tokenizer, images.device)
    features = torch.cat([image_features(model, part) for part in images.split(512)])
    scores = features @ text_features(model, probes.tokens).T
    nouns, *looks = probes.answers(scores, class_index)
    classes, kinds = nouns.split([len(CLASS_NAMES), len(GENERIC_NOUNS)], dim=1)
    return Judgement(*(part.argmax(-1) for part in (classes, kinds, *looks)))


def scorer_accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, renders: Renders) -> dict[str, float]:
    """Accuracy of a scorer on unseen renders: class, main colour, and view away from the borders."""
    told = renders.attributes
    answers = judge(model, tokenizer, renders.images.float() / 255, told[:, 0])
    clear = away_from_borders(renders.azimuth_deg, renders.elevation_deg)
    return {
        "class": (answers.class_index == told[:, 0]).float().mean().item(),
        "colour": (answers.colour_index == told[:, 1]).float().mean().item(),
        "view": (answers.view_index == told[:, -1])[clear].float().mean().item(),
        "view_all": (answers.view_index == told[:, -1]).float().mean().item(),
    }


def mesh_accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, renders: Renders) -> dict[str, float]:
    """Accuracy of a scorer on pictures of meshes: kind among all generic nouns; view where the front is known.

    Views are asked with the mesh's noun and with `object`, away from the borders.
    """
    told, images = renders.attributes, renders.images.float() / 255
    answers = judge(model, tokenizer, images, told[:, 0])
    as_object = judge(model, tokenizer, images, torch.full_like(told[:, 0], NOUNS.index("object")))
    clear = away_from_borders(renders.azimuth_deg, renders.elevation_deg) & (told[:, -1] != UNKNOWN)
    return {
        "noun": (answers.kind_index == told[:, 0] - len(CLASS_NAMES)).float().mean().item(),
        "view": (answers.view_index == told[:, -1])[clear].float().mean().item(),
        "object_view": (as_object.view_index == told[:, -1])[clear].float().mean().item(),
    }


@torch.no_grad()
def subject_r_precision(model: CLIPModel, tokenizer: CLIPTokenizer) -> float:
    """Share of true turntable views of all named subjects whose true caption the scorer ranks first among its 200."""
    cameras, shares = turntable_cameras().to(model.device), []
    for recipe in SUBJECTS.values():
        captions = published_captions(recipe)
        views = render_views(recipe, cameras, torch.ones(3, device=model.device), IMAGE_SIZE).image
        texts = text_features(model, tokenize(tokenizer, captions).to(model.device))
        best = (image_features(model, views) @ texts.T).argmax(-1)
        shares.append((best == captions.index(caption(recipe))).float().mean())
    return torch.stack(shares).mean().item()


@torch.no_grad()
def sample_obedience(
    pipeline: StableDiffusionPipeline,
    scorer: CLIPModel,
    tokenizer: CLIPTokenizer,
    count: int = 768,
    guidance_scale: float = 4.0,
    steps: int = 30,
    seed: int = 0,
) -> tuple[dict[str, float], Tensor, list[str]]:
    """Sample prompts with class, colour and view; the share of samples in which the scorer finds each obeyed.

    `tokenizer` is the scorer's.

    Returns:
        rates by name, images (count, 3, 64, 64) in [0, 1], prompts.
    """
    generator = torch.Generator().manual_seed(seed)
    told = torch.stack(
        [
            torch.arange(count) % len(TRAINING_CLASSES),
            torch.randint(len(COLOUR_NAMES), (count,), generator=generator),
            torch.randint(len(VIEW_WORDS), (count,), generator=generator),
        ],
        dim=1,
    )
    prompts = [
        f"a photo of a {COLOUR_NAMES[colour]} {TRAINING_CLASSES[noun]}, {VIEW_WORDS[view]} view"
        for noun, colour, view in told.tolist()
    ]
    images = []
    for start in range(0, count, 128):
        batch = prompts[start : start + 128]
        latents = torch.randn(len(batch), 4, 16, 16, generator=generator)
        output = pipeline(
            batch,
            latents=latents.to(pipeline.device, pipeline.unet.dtype),
            guidance_scale=guidance_scale,
            num_inference_steps=steps,
            output_type="pt",
        )
        images.append(output.images.float())
    images, told = torch.cat(images).clamp(0, 1), told.to(images[0].device)
    answers = judge(scorer, tokenizer, images, told[:, 0])
    rates = {
        "class": (answers.class_index == told[:, 0]).float().mean().item(),
        "colour": (answers.colour_index == told[:, 1]).float().mean().item(),
        "view": (answers.view_index == told[:, 2]).float().mean().item(),
    }
    return rates, images, prompts
