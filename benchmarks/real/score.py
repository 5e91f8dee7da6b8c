"""How far an asset's turntable is from the truth, also with the freedom that photos leave taken out.

Photos tell neither how large a subject is nor exactly where its front is. The aligned scores are those after the one
turn about the axis and the one scaling of the images by which psnr_fg becomes the best.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.evaluation.pixels import Views, mask_iou, psnr, psnr_fg

SCALES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
"""Factors by which images are enlarged about their middle."""
SCORES = {"psnr": psnr, "psnr_fg": psnr_fg, "mask_iou": mask_iou}


def score(views: Views, truth: Views) -> dict[str, float]:
    """Means over n views on white: psnr (dB), psnr_fg (dB, over the union of both masks) and mask_iou, unaligned."""
    return {name: metric(views, truth).mean().item() for name, metric in SCORES.items()}


def aligned_score(views: Views, truth: Views) -> dict[str, float]:
    """The same after the best turn and scaling, with `_aligned` behind the names, and what these are.

    Args:
        views: of an asset, n evenly spread over the full circle, counter-clockwise.
        truth: from the same cameras.

    Returns:
        The scores, scale (the factor on the asset's images), turn_deg (counter-clockwise, in [-180, 180)) by which the
        asset is turned, and heading_deg, its size.
    """
    count = len(truth)
    found = {}
    for factor in SCALES:
        zoomed = scaled(views, factor)
        for turn in range(count):
            found[factor, turn] = psnr_fg(turned(zoomed, turn), truth).mean().item()
    factor, turn = max(found, key=found.__getitem__)
    turn_deg = wrap_degrees(torch.tensor(360.0 * turn / count)).item()
    best = score(turned(scaled(views, factor), turn), truth)
    return {f"{name}_aligned": value for name, value in best.items()} | {
        "scale": factor,
        "turn_deg": turn_deg,
        "heading_deg": abs(turn_deg),
    }


def all_scores(views: Views, truth: Views) -> Mapping[str, float]:
    """Unaligned and aligned scores."""
    return score(views, truth) | aligned_score(views, truth)


def turned(views: Views, steps: int) -> Views:
    """Views of an asset that is turned counter-clockwise by so many of the turntable's steps."""
    return Views(views.images.roll(steps, dims=0), views.masks.roll(steps, dims=0))


def scaled(views: Views, factor: float) -> Views:
    """Views whose images are enlarged about their middle, by nearest pixels; what comes into the frame is white."""
    side = views.masks.shape[-1]
    index, inside = _nearest(side, factor)
    index, inside = index.to(views.masks.device), inside.to(views.masks.device)

    def zoomed(values: Float[Tensor, "*batch height width"], fill: float) -> Tensor:
        chosen = values[..., index, :][..., index]
        return torch.where(inside[:, None] & inside, chosen, fill)

    return Views(zoomed(views.images, 1.0), zoomed(views.masks, 0.0))


def _nearest(side: int, factor: float) -> tuple[Tensor, Tensor]:
    """(side,) the pixel that each pixel of an enlarged row shows, and whether there is one."""
    middle = side / 2
    index = ((torch.arange(side, dtype=torch.float64) + 0.5 - middle) / factor + middle - 0.5).round().long()
    return index.clamp(0, side - 1), (index >= 0) & (index < side)
