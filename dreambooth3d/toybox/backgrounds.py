"""Backgrounds of toybox pictures: white, plain, gradient, or a wall and a floor."""

from __future__ import annotations

import colorsys
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

WHITE_SHARE = 0.2
GRADIENT_SHARE = 0.2
FLOOR_SHARE = 0.2


def random_backgrounds(
    count: int, random: Random, white_share: float = WHITE_SHARE
) -> tuple[Float[Tensor, "{count} 3 2"], Float[Tensor, " {count}"]]:
    """Draw backgrounds.

    Returns:
        colours (count, 3, 2) at the top and the bottom in [0, 1], and horizons (count,): the height of the edge between
        both as a share of the picture from the top, NaN for a smooth gradient.
    """
    colours, horizons = [], []
    for _ in range(count):
        kind, horizon = random.random(), random.uniform(0.35, 0.75)
        top, bottom = random_background_colour(random), random_background_colour(random)
        if kind < white_share:
            top = bottom = (1.0, 1.0, 1.0)
        elif kind < 1 - GRADIENT_SHARE - FLOOR_SHARE:
            bottom = top
        colours.append(list(zip(top, bottom, strict=True)))
        horizons.append(horizon if kind > 1 - FLOOR_SHARE else float("nan"))
    return torch.tensor(colours), torch.tensor(horizons)


def random_background_colour(random: Random) -> tuple[float, float, float]:
    """A colour of any hue, light to middling and not too vivid."""
    return colorsys.hsv_to_rgb(random.random(), 0.42 * random.random() ** 1.5, random.uniform(0.5, 1.0))


def paint_backgrounds(
    colours: Float[Tensor, "n 3 2"], horizon: Float[Tensor, " n"], size: int
) -> Float[Tensor, "n 3 {size} {size}"]:
    """(n, 3, size, size) images of colours (n, 3, 2) and horizons (n,) as `random_backgrounds` draws them."""
    height = ((torch.arange(size, device=colours.device) + 0.5) / size).expand(len(colours), size)
    floor = (height > horizon[:, None]).float()
    share = torch.where(horizon[:, None].isnan(), height, floor)[:, None, :, None]
    top, bottom = colours[..., 0, None, None], colours[..., 1, None, None]
    return (top + (bottom - top) * share).expand(-1, -1, -1, size).contiguous()
