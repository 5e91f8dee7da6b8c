"""Renders with their captions and attributes, on the training device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.toybox.captions import caption, random_caption
from dreambooth3d.toybox.recipes import COLOUR_NAMES, Recipe, rival_recipe
from dreambooth3d.toybox.sampling import CLASS_NAMES, Attributes, BatchPlan, Captioner, plan_batch, render_batch

# What a caption of each kind states. The last two are exhaustive: an accessory or pattern that they leave out is not
# there. No caption of one kind may read like one of another kind that states less, or it would be true and false.
STATEMENTS = (
    ("class_index",),
    ("class_index", "view"),
    ("class_index", "main"),
    ("class_index", "main", "view"),
    ("class_index", "main", "second", "pattern", "accessory", "accessory_colour"),
    ("class_index", "main", "second", "pattern", "accessory", "accessory_colour", "view"),
)
ATTRIBUTES = ("class_index", "main", "second", "pattern", "accessory", "accessory_colour", "view")
FULL_STATEMENT = 4
"""Place in `STATEMENTS` of the full caption without view, with which rivals compete."""
RIVALS = 8
CAPTION_VARIANTS = 4
_BATCH = 4000
_SEPARATOR = "\n"


def caption_variants(recipe: Recipe, view: str, random: Random) -> str:
    """Several random captions of one picture, a line each: what the denoiser learns from."""
    return _SEPARATOR.join(random_caption(recipe, view, random) for _ in range(CAPTION_VARIANTS))


def statement_captions(recipe: Recipe, view: str, random: Random) -> str:
    """One caption for each of `STATEMENTS`, a line each."""
    return _SEPARATOR.join(
        caption(
            recipe,
            view if "view" in stated else None,
            colours=("main" in stated) + ("second" in stated),
            pattern="pattern" in stated,
            accessory="accessory" in stated,
        )
        for stated in STATEMENTS
    )


def scorer_captions(recipe: Recipe, view: str, random: Random) -> str:
    """`statement_captions`, then `RIVALS` full captions without view that are not true: what the scorers learn from."""
    truth = caption(recipe)
    rivals: list[str] = []
    while len(rivals) < RIVALS:
        rival = caption(rival_recipe(recipe, random))
        if rival != truth:
            rivals.append(rival)
    return _SEPARATOR.join((statement_captions(recipe, view, random), *rivals))


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """(n, 24) token ids."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


@dataclass(frozen=True)
class Renders:
    """N renders of random recipes.

    Attributes:
        images: (N, 3, 64, 64) uint8.
        tokens: (N, K, 24) token ids of K captions each.
        attributes: (N, 7) indices in the order of `ATTRIBUTES`; -1 means none.
        azimuth_deg, elevation_deg: (N,) of the cameras.
    """

    images: Tensor
    tokens: Tensor
    attributes: Tensor
    azimuth_deg: Tensor
    elevation_deg: Tensor

    def __len__(self) -> int:
        return len(self.images)


def cached_renders(path: Path, make: Callable[[], Renders], device: torch.device) -> Renders:
    """Renders from a file, or made and written there, so that a resumed stage need not render again."""
    if path.exists():
        return Renders(**load_file(path, device=str(device)))
    renders = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({field.name: getattr(renders, field.name).contiguous() for field in fields(Renders)}, partial)
    partial.replace(path)
    return renders


def _attribute_matrix(attributes: Attributes) -> Tensor:
    """(n, 7) in the order of `ATTRIBUTES`."""
    return torch.stack([getattr(attributes, name) for name in ATTRIBUTES], dim=1)


def make_renders(
    count: int,
    first_seed: int,
    tokenizer: CLIPTokenizer,
    captioner: Captioner,
    device: torch.device,
    reserved: bool = False,
) -> Renders:
    """Render `count` random recipes with their captions; batch i has the seed `first_seed + i`.

    `reserved` also draws what the base model never sees (`random_recipe`).
    """
    sizes = [min(_BATCH, count - start) for start in range(0, count, _BATCH)]

    def plan(size: int, seed: int) -> BatchPlan:
        return plan_batch(size, seed, captioner=captioner, reserved=reserved)

    images, tokens, attributes, azimuths, elevations = [], [], [], [], []
    with ThreadPoolExecutor(1) as planner:
        # The CPU plans the next batch while the device renders this one.
        pending = planner.submit(plan, sizes[0], first_seed)
        for index in range(len(sizes)):
            batch: BatchPlan = pending.result()
            if index + 1 < len(sizes):
                pending = planner.submit(plan, sizes[index + 1], first_seed + index + 1)
            images.append(render_batch(batch, device).images)
            lines = [line for text in batch.captions for line in text.split(_SEPARATOR)]
            tokens.append(tokenize(tokenizer, lines).view(len(batch.captions), -1, tokenizer.model_max_length))
            attributes.append(_attribute_matrix(batch.attributes))
            azimuths.append(batch.attributes.azimuth_deg)
            elevations.append(batch.attributes.elevation_deg)
    small = (torch.cat(parts).to(device) for parts in (tokens, attributes, azimuths, elevations))
    return Renders(torch.cat(images), *small)


@dataclass(frozen=True)
class Probes:
    """Captions that ask for one attribute at a time, given the class.

    Attributes:
        class_tokens: (classes, 24).
        colour_tokens: (classes * colours, 24), colour fastest.
        view_tokens: (classes * views, 24), view fastest.
    """

    class_tokens: Tensor
    colour_tokens: Tensor
    view_tokens: Tensor

    @staticmethod
    def build(tokenizer: CLIPTokenizer, device: torch.device) -> Probes:
        """Tokenise all probes."""
        nouns = CLASS_NAMES
        texts = (
            [f"a photo of a {noun}" for noun in nouns],
            [f"a photo of a {colour} {noun}" for noun in nouns for colour in COLOUR_NAMES],
            [f"a photo of a {noun}, {view} view" for noun in nouns for view in VIEW_WORDS],
        )
        return Probes(*(tokenize(tokenizer, captions).to(device) for captions in texts))

    @property
    def tokens(self) -> Tensor:
        """All probes, (classes * (1 + colours + views), 24)."""
        return torch.cat([self.class_tokens, self.colour_tokens, self.view_tokens])

    def answers(self, scores: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split scores (n, probes) into class (n, classes), and colour and view (n, choices) of the given class."""
        sizes = [len(part) for part in (self.class_tokens, self.colour_tokens, self.view_tokens)]
        classes, colours, views = scores.split(sizes, dim=1)
        rows = torch.arange(len(scores), device=scores.device)
        colours = colours.reshape(len(scores), len(CLASS_NAMES), -1)[rows, class_index]
        return classes, colours, views.reshape(len(scores), len(CLASS_NAMES), -1)[rows, class_index]


def probe_loss(probes: Probes, scores: Tensor, attributes: Tensor) -> Tensor:
    """Cross entropy of the right answers to all three questions."""
    class_index = attributes[:, 0]
    classes, colours, views = probes.answers(scores, class_index)
    named = F.cross_entropy(classes, class_index) + F.cross_entropy(colours, attributes[:, 1])
    return named + F.cross_entropy(views, attributes[:, -1])


def statement_matrix(device: torch.device) -> Tensor:
    """(statements, attributes) bool: what each kind of caption states."""
    return torch.tensor([[name in stated for name in ATTRIBUTES] for stated in STATEMENTS], device=device)


def rival_loss(image: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Cross entropy of an image's true full caption among its rivals.

    Args:
        image: (n, d) unit-length features.
        texts: (n, 1 + rivals, d) unit-length features; the true caption is the first.
        scale: inverse temperature.
    """
    scores = scale * torch.einsum("nd,nkd->nk", image, texts)
    return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))


def true_pairs(image_attributes: Tensor, caption_attributes: Tensor, stated: Tensor) -> Tensor:
    """(images, captions) bool: whether all that a caption states holds for an image.

    Args:
        image_attributes: (images, 7).
        caption_attributes: (captions, 7), of the picture that the caption was made from.
        stated: (captions, 7) bool.
    """
    equal = image_attributes[:, None] == caption_attributes[None]
    return (equal | ~stated[None]).all(dim=-1)
