"""Training pictures of a pack's meshes, captioned in the toybox's language with generic nouns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from dreambooth3d.cameras import VIEW_WORDS, view_word
from dreambooth3d.toybox.backgrounds import paint_backgrounds, random_backgrounds
from dreambooth3d.toybox.captions import GENERIC_NOUNS, IDENTIFIERS, PREFIX
from dreambooth3d.toybox.pretraining.colour_words import dominant_colours
from dreambooth3d.toybox.pretraining.dataset import (
    CAPTION_VARIANTS,
    NOUNS,
    RIVALS,
    STATEMENTS,
    UNKNOWN,
    Renders,
    tokenize,
)
from dreambooth3d.toybox.pretraining.networks import IMAGE_SIZE
from dreambooth3d.toybox.pretraining.packs import MeshViews, pack_backgrounds, pack_views
from dreambooth3d.toybox.recipes import COLOUR_NAMES
from dreambooth3d.toybox.sampling import CLASS_NAMES
from dreambooth3d.toybox.solids import COLOURS

MESH_SHARE = 0.35
"""Of all training pictures."""
OBJECT_SHARE = 0.3
PHOTOGRAPH_SHARE = 0.3
PAINTED_SHARE = 0.4
TWO_PAINTS_SHARE = 0.5
TURNED_HUE_SHARE = 0.4
OFF_MIDDLE_SHARE = 0.5
_BALL = (0.72, 1.0)
_OFF_MIDDLE = 0.22
_CHUNK = 1024
_DARK = 0.88
_HEADING_WEIGHT = 1.6
_BACKGROUND_SIZE = 96


@dataclass(frozen=True)
class MeshLook:
    """What captions can say of a picture of a mesh; None where it is not known."""

    noun: str
    main: str | None = None
    second: str | None = None
    view: str | None = None


MeshCaptioner = Callable[[MeshLook, Random], list[str]]


def mesh_caption(look: MeshLook, *, colours: int = 2, identifier: str | None = None) -> str:
    """Describe a picture: `a photo of a red and white sks vehicle, front view`, without what is unknown.

    Args:
        look: what is known.
        colours: how many colours are named at most.
        identifier: a rare token before the noun.
    """
    named = (look.main, look.second and f"and {look.second}")[:colours]
    text = " ".join(word for word in (PREFIX, *named, identifier, look.noun) if word)
    return f"{text}, {look.view} view" if look.view else text


def mesh_caption_variants(look: MeshLook, random: Random) -> list[str]:
    """Random captions for the denoiser, parts left out as in `captions.random_caption`; some say `object`."""
    return [_random_caption(look, random) for _ in range(CAPTION_VARIANTS)]


def _random_caption(look: MeshLook, random: Random) -> str:
    if random.random() < 0.08:
        return ""
    noun = "object" if random.random() < OBJECT_SHARE else look.noun
    view = look.view if random.random() < 0.85 else None
    return mesh_caption(
        MeshLook(noun, look.main, look.second, view),
        colours=random.choices((0, 1, 2), (0.2, 0.25, 0.55))[0],
        identifier=random.choice(IDENTIFIERS) if random.random() < 0.03 else None,
    )


def mesh_statement_captions(look: MeshLook, _: Random) -> list[str]:
    """For the scorers, a caption in the place of each of `STATEMENTS` and of the rivals.

    Those that would state what is unknown, as pattern and accessory always are, hold the noun alone and do not count.
    """
    texts = []
    for stated in STATEMENTS:
        full = "pattern" in stated
        kept = MeshLook(
            look.noun,
            look.main if "main" in stated and not full else None,
            None,
            look.view if "view" in stated and not full else None,
        )
        texts.append(mesh_caption(kept))
    return texts + [mesh_caption(MeshLook(look.noun))] * RIVALS


@torch.no_grad()
def mesh_renders(
    views: MeshViews,
    backgrounds: UInt8[Tensor, "k 3 height width"],
    count: int,
    seed: int,
    tokenizer: CLIPTokenizer,
    captioner: MeshCaptioner,
) -> Renders:
    """`count` pictures of meshes; the same for the same seed.

    Nouns of few meshes, and meshes with a front, are drawn more often than their share. Where `count` is the number of
    views each is drawn once.
    """
    generator, random = torch.Generator().manual_seed(seed), Random(seed)
    rows = _rows(views, count, generator)
    parts = [_compose(views, backgrounds, part.to(views.noun.device), generator, random) for part in rows.split(_CHUNK)]
    images, main, second = (torch.cat(values) for values in zip(*parts, strict=True))
    rows = rows.to(views.noun.device)
    nouns = [GENERIC_NOUNS[index] for index in views.noun[rows].tolist()]
    azimuth, elevation = views.azimuth_deg[rows], views.elevation_deg[rows]
    known = views.heading_known[rows].tolist()
    words = [
        view_word(*angles) if sure else None
        for *angles, sure in zip(azimuth.tolist(), elevation.tolist(), known, strict=True)
    ]
    colours = [
        [None if index == UNKNOWN else COLOUR_NAMES[index] for index in each.tolist()] for each in (main, second)
    ]
    looks = [MeshLook(*values) for values in zip(nouns, *colours, words, strict=True)]
    texts = [captioner(look, random) for look in looks]
    tokens = tokenize(tokenizer, [text for each in texts for text in each]).view(count, -1, tokenizer.model_max_length)
    return Renders(images, tokens.to(images.device), _attributes(looks, main), azimuth, elevation)


def _rows(views: MeshViews, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    if count == len(views):
        return torch.arange(count)
    frequency = torch.bincount(views.noun, minlength=len(GENERIC_NOUNS)).float()
    weight = frequency[views.noun].rsqrt() * torch.where(views.heading_known, _HEADING_WEIGHT, 1.0)
    return torch.multinomial(weight.cpu(), count, replacement=True, generator=generator)


def _attributes(looks: list[MeshLook], main: Tensor) -> Int[Tensor, "n 7"]:
    unknown = torch.full_like(main, UNKNOWN)
    noun = torch.tensor([NOUNS.index(look.noun, len(CLASS_NAMES)) for look in looks], device=main.device)
    view = [UNKNOWN if look.view is None else VIEW_WORDS.index(look.view) for look in looks]
    return torch.stack([noun, main, *[unknown] * 4, torch.tensor(view, device=main.device)], dim=1)


def _compose(
    views: MeshViews,
    backgrounds: UInt8[Tensor, "k 3 height width"],
    rows: Int[Tensor, " n"],
    generator: torch.Generator,
    random: Random,
) -> tuple[UInt8[Tensor, "n 3 size size"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Pictures, and the subjects' main and second colours."""
    count, device = len(rows), rows.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=generator)).to(device)

    zoom = uniform(*_BALL) / views.ball[rows]
    reach = torch.where(uniform(0, 1) < OFF_MIDDLE_SHARE, _OFF_MIDDLE, 0.03)
    mirrored = torch.where(uniform(0, 1) < 0.5, 1.0, -1.0)
    pose = torch.zeros(count, 2, 3, device=device)
    pose[:, 0, 0], pose[:, 1, 1] = mirrored / zoom, 1 / zoom
    pose[:, :, 2] = uniform(-1, 1, 2) * (reach / zoom)[:, None]
    layer = _warped(views.layers[rows].float() / 255, pose)
    opacity = layer[:, 3]
    colour = _recoloured(layer[:, :3] / opacity[:, None].clamp(min=1e-3), opacity, uniform)
    gain = uniform(0.85, 1.12, 1, 1, 1) * uniform(0.95, 1.05, 3, 1, 1)
    main, second = dominant_colours((colour * gain).clamp(0, 1), opacity)
    ground = _grounds(backgrounds, count, generator, random, uniform, device)
    image = (torch.lerp(ground, colour, opacity[:, None]) * gain).clamp(0, 1)
    return (255 * image).round().to(torch.uint8), main, second


def _warped(pictures: Float[Tensor, "n c h w"], pose: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c size size"]:
    """Pictures as seen by the affine poses, nothing around them."""
    grid = F.affine_grid(pose, [*pictures.shape[:2], IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def _recoloured(colour: Tensor, opacity: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """A share is painted in one or two of the toybox's colours, another has its hues turned, made vivid or dull."""
    draw = uniform(0, 1)
    light = (colour * colour.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1, keepdim=True)
    weight = opacity[:, None]
    mean = (light * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    paints = colour.new_tensor(list(COLOURS.values()))
    paint, other = (paints[(uniform(0, 1) * len(paints)).long()][..., None, None] for _ in range(2))
    in_two = (uniform(0, 1) < TWO_PAINTS_SHARE).view(-1, 1, 1, 1) & (light < _DARK * mean)
    paint = torch.where(in_two, other, paint)
    painted = paint * (0.5 + 0.45 * light / mean.clamp(min=0.05)).clamp(0.5, 1.15)
    turned = light + torch.einsum("nij,njhw->nihw", _hue_turns(uniform), colour - light) * uniform(0.5, 1.6, 1, 1, 1)
    is_painted, is_turned = draw < PAINTED_SHARE, draw > 1 - TURNED_HUE_SHARE
    colour = torch.where(is_painted.view(-1, 1, 1, 1), painted, colour)
    return torch.where(is_turned.view(-1, 1, 1, 1), turned, colour).clamp(0, 1)


def _hue_turns(uniform: Callable[..., Tensor]) -> Float[Tensor, "n 3 3"]:
    """Rotations of colours around the axis of greys by any angle."""
    angle = uniform(0, 2 * torch.pi, 1, 1)
    cosine, sine, third = angle.cos(), angle.sin(), 1 / 3
    cross = third**0.5 * angle.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return cosine * torch.eye(3, device=angle.device) + sine * cross + (1 - cosine) * third


def _grounds(
    backgrounds: UInt8[Tensor, "k 3 height width"],
    count: int,
    generator: torch.Generator,
    random: Random,
    uniform: Callable[..., Tensor],
    device: torch.device,
) -> Float[Tensor, "count 3 size size"]:
    """The toybox's backgrounds, and before a share photographs and textures in their stead."""
    colours, horizon = random_backgrounds(count, random)
    painted = paint_backgrounds(colours.to(device), horizon.to(device), IMAGE_SIZE)
    chosen = torch.randint(len(backgrounds), (count,), generator=generator).to(device)
    small = F.interpolate(backgrounds[chosen].float() / 255, (_BACKGROUND_SIZE,) * 2, mode="area")
    scale = uniform(0.5, 0.8)
    pose = torch.zeros(count, 2, 3, device=device)
    pose[:, 0, 0], pose[:, 1, 1] = scale * torch.where(uniform(0, 1) < 0.5, 1.0, -1.0), scale
    pose[:, :, 2] = uniform(-1, 1, 2) * (1 - scale)[:, None]
    return torch.where((uniform(0, 1) < PHOTOGRAPH_SHARE).view(-1, 1, 1, 1), _warped(small, pose), painted)


def pack_renders(
    folder: Path,
    split: str,
    seed: int,
    tokenizer: CLIPTokenizer,
    captioner: MeshCaptioner,
    device: torch.device,
    count: int | None = None,
) -> Renders:
    """Pictures of a pack's meshes, as many as views where no `count` is given; errors as for `pack_views`."""
    views = pack_views(folder, split, device)
    backgrounds = pack_backgrounds(folder, split, device)
    return mesh_renders(views, backgrounds, len(views) if count is None else count, seed, tokenizer, captioner)
