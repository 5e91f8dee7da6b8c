"""Which of the toybox's colours a picture's subject has, where one clearly dominates."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.toybox.pretraining.dataset import UNKNOWN
from dreambooth3d.toybox.recipes import COLOUR_NAMES
from dreambooth3d.toybox.solids import COLOURS, PALETTE

MAIN_SHARE = 0.5
SECOND_SHARE = 0.2
FARTHEST = 28.0
"""Distance in CIELAB beyond which a pixel has none of the colours."""
_SHADES = (1.0, 0.78)
_NAMELESS = (*PALETTE[len(COLOURS) :], (0.45, 0.45, 0.45), (0.28, 0.28, 0.28), (0.0, 0.5, 0.5), (0.45, 0.45, 0.2))
"""Greys and others that lie between the colours with names."""
_OPAQUE = 0.9
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)


def cielab(rgb: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """CIELAB (D65) of sRGB in [0, 1]."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ rgb.new_tensor(_TO_XYZ).T / rgb.new_tensor(_WHITE)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def dominant_colours(
    colour: Float[Tensor, "n 3 height width"], opacity: Float[Tensor, "n height width"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The subject's main and second colour, as indices into `COLOUR_NAMES`; `UNKNOWN` where none is clear.

    Each opaque pixel has the colour that is nearest in CIELAB, in the light or in the shade. The main colour is that of
    at least `MAIN_SHARE` of them, the second that of at least `SECOND_SHARE`.

    Args:
        colour: sRGB in [0, 1], not multiplied by opacity.
        opacity: in [0, 1].
    """
    named = colour.new_tensor([[shade * part for part in value] for value in COLOURS.values() for shade in _SHADES])
    known = torch.cat([named, colour.new_tensor(_NAMELESS)])
    pixels = cielab(colour.flatten(2).transpose(1, 2))
    distance, nearest = torch.cdist(pixels, cielab(known).expand(len(colour), -1, -1)).min(-1)
    nearest = torch.where(
        distance > FARTHEST, len(COLOUR_NAMES), (nearest // len(_SHADES)).clamp(max=len(COLOUR_NAMES))
    )
    opaque = opacity.flatten(1) > _OPAQUE
    votes = torch.nn.functional.one_hot(nearest, len(COLOUR_NAMES) + 1).float() * opaque[..., None]
    shares = votes.sum(1)[:, :-1] / opaque.sum(1, keepdim=True).clamp(min=1)
    best, index = shares.topk(2, dim=-1)
    main = torch.where(best[:, 0] >= MAIN_SHARE, index[:, 0], UNKNOWN)
    second = torch.where((best[:, 1] >= SECOND_SHARE) & (main != UNKNOWN), index[:, 1], UNKNOWN)
    return main, second
