"""Ellipses become images: each pixel is composited from front to back, in PyTorch alone.

Only pairs of a Gaussian and a pixel at which it is visible are looked at, all at once, in the order of the pixels and,
on each, of the depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.gaussians.projection import Ellipses

MIN_ALPHA = 1 / 255
"""Opacity at a pixel below which a Gaussian is not looked at there."""
MAX_ALPHA = 0.999


@dataclass(frozen=True)
class Pairs:
    """Gaussians at pixels where they are visible, sorted by pixel, then from front to back.

    Attributes:
        splats: (p,) index of the Gaussian in a view: view * n + number.
        pixels: (p,) index among the pixels that are composited.
        column, row: (p,) of the pixel's centre, in pixels from the image's upper left corner.
        count: number of pixels that are composited.
    """

    splats: Int[Tensor, " p"]
    pixels: Int[Tensor, " p"]
    column: Float[Tensor, " p"]
    row: Float[Tensor, " p"]
    count: int


@torch.no_grad()
def visible_pairs(
    ellipses: Ellipses,
    height: int,
    width: int,
    places: Int[Tensor, " k"] | None = None,
    rows: tuple[int, int] | None = None,
    min_alpha: float = MIN_ALPHA,
) -> Pairs:
    """All pairs of v views of (height, width) pixels.

    Args:
        places: (k,) row * width + column of the pixels that are wanted in each view, view by view; None for all.
        rows: first row and the one after the last that are wanted, without `places`.
        min_alpha: opacity from which a Gaussian is visible at a pixel.
    """
    device, (first, end) = ellipses.depths.device, rows or (0, height)
    views, number = ellipses.depths.shape
    order = ellipses.depths.argsort(dim=1, stable=True)
    splats = (order + number * torch.arange(views, device=device)[:, None]).flatten()
    opacity = ellipses.opacities.detach().flatten()[splats]
    splats = splats[opacity > min_alpha]
    middle, spread = ellipses.means.detach().flatten(0, 1)[splats], ellipses.spreads.detach().flatten(0, 1)[splats]
    reach = 2 * torch.log(ellipses.opacities.detach().flatten()[splats] / min_alpha)
    tall = (reach * spread[:, 2]).sqrt()
    low = torch.ceil(middle[:, 1] - tall - 0.5).clamp(first, end).long()
    high = torch.floor(middle[:, 1] + tall - 0.5).clamp(first - 1, end - 1).long()
    entry, row = _ranges(low, high)
    # On a row, the columns between both crossings of the ellipse.
    xx, xy, yy = spread[entry].unbind(-1)
    offset = row + 0.5 - middle[entry, 1]
    half = ((reach[entry] - offset.square() / yy).clamp(min=0) * (xx - xy.square() / yy)).sqrt()
    centre = middle[entry, 0] + offset * xy / yy
    left = torch.ceil(centre - half - 0.5).clamp(0, width).long()
    right = torch.floor(centre + half - 0.5).clamp(-1, width - 1).long()
    span, column = _ranges(left, right)
    row, splats = row[span], splats[entry[span]]
    view = splats // number
    if places is None:
        pixels, per_view = (row - first) * width + column, (end - first) * width
    else:
        lookup = torch.full((height * width,), -1, device=device)
        lookup[places] = torch.arange(len(places), device=device)
        pixels, per_view = lookup[row * width + column], len(places)
        wanted = pixels >= 0
        pixels, splats, view, row, column = (values[wanted] for values in (pixels, splats, view, row, column))
    pixels = pixels + view * per_view
    pixels, sorting = torch.sort(pixels.int(), stable=True)
    across, down = ((values[sorting] + 0.5).to(middle) for values in (column, row))
    return Pairs(splats[sorting], pixels.long(), across, down, views * per_view)


def _ranges(low: Int[Tensor, " n"], high: Int[Tensor, " n"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """All whole numbers from `low` (n,) to `high` (n,), both included: index (m,) of the range, and the number."""
    lengths = (high - low + 1).clamp(min=0)
    index = torch.repeat_interleave(torch.arange(len(low), device=low.device), lengths)
    before = torch.cumsum(lengths, 0) - lengths
    return index, torch.arange(len(index), device=low.device) + (low - before)[index]


def composite(
    ellipses: Ellipses, features: Float[Tensor, "v n c"], pairs: Pairs
) -> tuple[Float[Tensor, "pixels c"], Float[Tensor, " pixels"]]:
    """Features (pixels, c), weighted by what is seen of each Gaussian, and opacity (pixels,); differentiable.

    Source: Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering", eq. 3.
    """
    columns = [*ellipses.means.flatten(0, 1).unbind(-1), *ellipses.spreads.flatten(0, 1).unbind(-1)]
    columns += [ellipses.opacities.flatten(), *features.flatten(0, 1).unbind(-1)]
    *shown, opacity = _Composite.apply(pairs, *columns)
    return torch.stack(shown, dim=-1), opacity


class _Composite(torch.autograd.Function):
    """One column for each property of a Gaussian, since sums over columns are many times faster than over rows."""

    @staticmethod
    def forward(ctx: Any, pairs: Pairs, *columns: Tensor) -> tuple[Tensor, ...]:
        """From x, y, xx, xy, yy, opacity and features, each (v * n,), to images of the features and their opacity."""
        alpha = _alphas(pairs, *columns[:6])
        seen = _transmittance(alpha, pairs)
        weight = alpha * seen
        images = [_sum(weight * feature[pairs.splats], pairs.pixels, pairs.count) for feature in columns[6:]]
        ctx.pairs = pairs
        ctx.save_for_backward(alpha, seen, *columns)
        return *images, _sum(weight, pairs.pixels, pairs.count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Analytic."""
        pairs: Pairs = ctx.pairs
        alpha, seen, x, y, xx, xy, yy, opacity, *features = ctx.saved_tensors
        splats, size, weight = pairs.splats, len(x), alpha * seen
        # What a unit of a pair's weight is worth: its features and opacity times the pixel's gradients.
        worth, of_features = gradients[-1].contiguous()[pairs.pixels], []
        for feature, gradient in zip(features, gradients[:-1], strict=True):
            wanted = gradient.contiguous()[pairs.pixels]
            worth = worth + wanted * feature[splats]
            of_features.append(_sum(weight * wanted, splats, size))
        behind = _sums_behind((weight * worth).double(), pairs).to(weight.dtype)
        of_alpha = seen * worth - behind / (1 - alpha)
        of_alpha = torch.where(alpha < MAX_ALPHA, of_alpha, torch.zeros_like(of_alpha))
        of_power = of_alpha * alpha  # alpha = opacity * exp(power)
        across, down = pairs.column - x[splats], pairs.row - y[splats]
        # The power is -d' S^-1 d / 2; its gradients are S^-1 d for the mean and (S^-1 d)(S^-1 d)' / 2 for S.
        area = xx * yy - xy.square()
        inverse_xx, inverse_xy, inverse_yy = (yy / area)[splats], (-xy / area)[splats], (xx / area)[splats]
        right = inverse_xx * across + inverse_xy * down
        below = inverse_xy * across + inverse_yy * down
        of_right, of_below = of_power * right, of_power * below
        return (
            None,
            _sum(of_right, splats, size),
            _sum(of_below, splats, size),
            _sum(of_right * right, splats, size) / 2,
            _sum(of_right * below, splats, size),
            _sum(of_below * below, splats, size) / 2,
            _sum(of_power, splats, size) / opacity.clamp(min=1e-12),
            *of_features,
        )


def _alphas(
    pairs: Pairs, x: Tensor, y: Tensor, xx: Tensor, xy: Tensor, yy: Tensor, opacity: Tensor
) -> Float[Tensor, " p"]:
    """(p,) opacity of each pair's Gaussian at its pixel."""
    splats = pairs.splats
    across, down, area = pairs.column - x[splats], pairs.row - y[splats], xx * yy - xy.square()
    power = (yy / area)[splats] * across.square() + (xx / area)[splats] * down.square()
    power = power - (2 * xy / area)[splats] * across * down
    return (opacity[splats] * torch.exp(-power / 2)).clamp(max=MAX_ALPHA)


def _transmittance(alpha: Float[Tensor, " p"], pairs: Pairs) -> Float[Tensor, " p"]:
    """(p,) share of the light from each pair's Gaussian that arrives at the pixel."""
    # float64, since sums on a pixel are differences of sums over all pixels.
    logs = torch.log1p(-alpha.double())
    total = torch.cumsum(logs, 0) - logs
    return torch.exp(total - total[_first(pairs)]).to(alpha.dtype)


def _sums_behind(values: Float[Tensor, " p"], pairs: Pairs) -> Float[Tensor, " p"]:
    """(p,) sum of the values of all pairs behind each one on its pixel."""
    total = torch.cumsum(values, 0)
    counts = torch.bincount(pairs.pixels, minlength=pairs.count)
    last = torch.cumsum(counts, 0) - 1
    return total[last[pairs.pixels]] - total


def _first(pairs: Pairs) -> Int[Tensor, " p"]:
    """(p,) first pair of each pair's pixel."""
    counts = torch.bincount(pairs.pixels, minlength=pairs.count)
    return (torch.cumsum(counts, 0) - counts)[pairs.pixels]


def _sum(values: Float[Tensor, " p"], index: Int[Tensor, " p"], size: int) -> Tensor:
    """(size,) sum of the values of each index."""
    return values.new_zeros(size).index_add_(0, index, values)
