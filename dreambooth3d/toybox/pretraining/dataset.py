"""Renders with their captions and attributes, on the training device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.toybox.captions import GENERIC_NOUNS, KIND_OF, caption, random_caption
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
NOUNS = (*CLASS_NAMES, *GENERIC_NOUNS)
"""What attributes call the class: the toybox's classes, then generic nouns."""
UNKNOWN = -2
"""Value of an attribute that a picture may have or not; -1 says that it has none."""
ATTRIBUTES = ("class_index", "main", "second", "pattern", "accessory", "accessory_colour", "view")
FULL_STATEMENT = 4
"""Place in `STATEMENTS` of the full caption without view, with which rivals compete."""
RIVALS = 8
CAPTION_VARIANTS = 4
OFF_MIDDLE_SHARE = 0.12
OFF_MIDDLE = 0.16
"""How far pictures are moved at most, as a share of half the frame."""
_GENERIC_WEIGHT = 0.25
_ASKED_GENERIC, _ASKED_OBJECT = 0.2, 0.2
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
    """(n, 24) token ids; what occurs often is tokenised once."""
    place = {text: index for index, text in enumerate(dict.fromkeys(captions))}
    ids = tokenizer(list(place), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids[[place[text] for text in captions]]


@dataclass(frozen=True)
class Renders:
    """N renders of random recipes.

    Attributes:
        images: (N, 3, 64, 64) uint8.
        tokens: (N, K, 24) token ids of K captions each.
        attributes: (N, 7) indices in the order of `ATTRIBUTES`; -1 means none, `UNKNOWN` not known.
        azimuth_deg, elevation_deg: (N,) of the cameras.
    """

    images: Tensor
    tokens: Tensor
    attributes: Tensor
    azimuth_deg: Tensor
    elevation_deg: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @staticmethod
    def cat(parts: Sequence[Renders]) -> Renders:
        """All pictures of all parts, which have as many captions each."""
        names = [field.name for field in fields(Renders)]
        return Renders(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def off_middle(renders: Renders, seed: int) -> Renders:
    """The renders with `OFF_MIDDLE_SHARE` of the pictures moved off the middle; what comes in continues the border."""
    generator = torch.Generator().manual_seed(seed)
    chosen = (torch.rand(len(renders), generator=generator) < OFF_MIDDLE_SHARE).nonzero().flatten()
    shift = OFF_MIDDLE * (2 * torch.rand(len(chosen), 2, generator=generator) - 1)
    images = renders.images.clone()
    for rows, by in zip(chosen.split(_BATCH), shift.split(_BATCH), strict=True):
        rows = rows.to(images.device)
        pose = torch.eye(2, 3).repeat(len(rows), 1, 1)
        pose[:, :, 2] = by
        grid = F.affine_grid(pose.to(images.device), [len(rows), *images.shape[1:]], align_corners=False)
        moved = F.grid_sample(images[rows].float(), grid, padding_mode="border", align_corners=False)
        images[rows] = moved.round().to(torch.uint8)
    return replace(renders, images=images)


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
        class_tokens: (nouns, 24), in the order of `NOUNS`.
        colour_tokens: (nouns * colours, 24), colour fastest.
        view_tokens: (nouns * views, 24), view fastest.
    """

    class_tokens: Tensor
    colour_tokens: Tensor
    view_tokens: Tensor

    @staticmethod
    def build(tokenizer: CLIPTokenizer, device: torch.device) -> Probes:
        """Tokenise all probes."""
        nouns = NOUNS
        texts = (
            [f"a photo of a {noun}" for noun in nouns],
            [f"a photo of a {colour} {noun}" for noun in nouns for colour in COLOUR_NAMES],
            [f"a photo of a {noun}, {view} view" for noun in nouns for view in VIEW_WORDS],
        )
        return Probes(*(tokenize(tokenizer, captions).to(device) for captions in texts))

    @property
    def tokens(self) -> Tensor:
        """All probes, (nouns * (1 + colours + views), 24)."""
        return torch.cat([self.class_tokens, self.colour_tokens, self.view_tokens])

    def answers(self, scores: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split scores (n, probes) into noun (n, nouns), and colour and view (n, choices) of the given noun."""
        sizes = [len(part) for part in (self.class_tokens, self.colour_tokens, self.view_tokens)]
        classes, colours, views = scores.split(sizes, dim=1)
        rows = torch.arange(len(scores), device=scores.device)
        colours = colours.reshape(len(scores), len(NOUNS), -1)[rows, class_index]
        return classes, colours, views.reshape(len(scores), len(NOUNS), -1)[rows, class_index]


def kinds(class_index: Tensor) -> Tensor:
    """(n,) index into `NOUNS` of the generic noun of each class; a generic noun's own."""
    table = [NOUNS.index(KIND_OF.get(noun, noun)) for noun in NOUNS]
    return _table(tuple(table), class_index.device)[class_index]


@cache
def _table(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept on the device, because a captured graph must not copy from the CPU."""
    return torch.tensor(values, device=device)


def asked_nouns(class_index: Tensor) -> Tensor:
    """(n,) index into `NOUNS` of what each picture's subject is called in a question: its class, kind, or `object`."""
    draw = torch.rand(len(class_index), device=class_index.device)
    asked = torch.where(draw < _ASKED_GENERIC + _ASKED_OBJECT, kinds(class_index), class_index)
    return torch.where(draw < _ASKED_OBJECT, NOUNS.index("object"), asked)


def probe_loss(probes: Probes, scores: Tensor, attributes: Tensor, asked: Tensor | None = None) -> Tensor:
    """Cross entropy of the right answers to all questions; what is unknown is not asked.

    The class is asked among the toybox's classes, the kind among the generic nouns, at a lower weight for subjects of
    the toybox.

    Args:
        probes: the questions.
        scores: (n, probes) inverse temperature times cosines.
        attributes: (n, 7), of the pictures.
        asked: (n,) the noun in the questions for colour and view; that of the attributes where None.
    """
    class_index = attributes[:, 0]
    nouns, colours, views = probes.answers(scores, class_index if asked is None else asked)
    first = len(CLASS_NAMES)
    of_toybox = class_index < first
    named = _known_cross_entropy(nouns[:, :first], torch.where(of_toybox, class_index, UNKNOWN))
    kind_weight = torch.where(of_toybox, _GENERIC_WEIGHT, 1.0)
    kind = F.cross_entropy(nouns[:, first:], kinds(class_index) - first, reduction="none")
    looks = _known_cross_entropy(colours, attributes[:, 1]) + _known_cross_entropy(views, attributes[:, -1])
    return named + (kind * kind_weight).mean() + looks


def _known_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy where the target (n,) is known; 0 where none is."""
    known = target != UNKNOWN
    loss = F.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum")
    return loss / known.sum().clamp(min=1)


def stated_kinds(kind: Tensor, attributes: Tensor, stated: Tensor) -> Tensor:
    """(n,) kinds of caption, that of the class alone in place of those that state what is unknown of a picture.

    Args:
        kind: (n,) into `STATEMENTS`.
        attributes: (n, 7).
        stated: (statements, 7) bool, `statement_matrix`.
    """
    return torch.where((stated[kind] & (attributes == UNKNOWN)).any(-1), 0, kind)


def statement_matrix(device: torch.device) -> Tensor:
    """(statements, attributes) bool: what each kind of caption states."""
    return torch.tensor([[name in stated for name in ATTRIBUTES] for stated in STATEMENTS], device=device)


def rival_loss(image: Tensor, texts: Tensor, scale: Tensor, described: Tensor | None = None) -> Tensor:
    """Cross entropy of an image's true full caption among its rivals.

    Args:
        image: (n, d) unit-length features.
        texts: (n, 1 + rivals, d) unit-length features; the true caption is the first.
        scale: inverse temperature.
        described: (n,) bool, which images have a full caption; all where None.
    """
    scores = scale * torch.einsum("nd,nkd->nk", image, texts)
    target = scores.new_zeros(len(scores), dtype=torch.long)
    return _known_cross_entropy(scores, target if described is None else torch.where(described, target, UNKNOWN))


def true_pairs(image_attributes: Tensor, caption_attributes: Tensor, stated: Tensor) -> Tensor:
    """(images, captions) bool: whether all that a caption states is known to hold for an image.

    Args:
        image_attributes: (images, 7).
        caption_attributes: (captions, 7), of the picture that the caption was made from.
        stated: (captions, 7) bool.
    """
    equal = image_attributes[:, None] == caption_attributes[None]
    return (equal | ~stated[None]).all(dim=-1)


def undecided_pairs(image_attributes: Tensor, caption_attributes: Tensor, stated: Tensor) -> Tensor:
    """(images, captions) bool: whether a caption may hold for an image or not; arguments as for `true_pairs`.

    It may where all that it states holds or is unknown, and something is unknown. Of nouns, a class and its kind may
    both hold, and so may `object`, `toy` and any other.
    """
    images, captions = image_attributes[:, None], caption_attributes[None]
    possible = (images == captions) | (images == UNKNOWN)
    noun = _compatible_nouns(image_attributes.device)[image_attributes[:, 0]][:, caption_attributes[:, 0]]
    possible = torch.cat([noun[..., None], possible[..., 1:]], dim=-1)
    return (possible | ~stated[None]).all(dim=-1) & ~true_pairs(image_attributes, caption_attributes, stated)


@cache
def _compatible_nouns(device: torch.device) -> Tensor:
    """(nouns, nouns) bool: whether one thing may be called both."""
    vague = {"object", "toy"}

    def both(first: str, second: str) -> bool:
        one_class = KIND_OF.get(first) == second or KIND_OF.get(second) == first
        other_classes = first in KIND_OF and second in KIND_OF
        return first == second or one_class or (not other_classes and not vague.isdisjoint((first, second)))

    return torch.tensor([[both(first, second) for second in NOUNS] for first in NOUNS], device=device)
