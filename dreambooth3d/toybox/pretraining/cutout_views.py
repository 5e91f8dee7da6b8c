"""Photographs that were cut out, as things seen from several sides: what a flat picture can give of that."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.toybox.pretraining.draws import Draws
from dreambooth3d.toybox.pretraining.packs import pack_cutouts
from dreambooth3d.toybox.pretraining.view_sets import VIEWS, ViewSets

THINGS = 4
"""How many are made of each picture, since there are ten times as many meshes."""
TURN = 0.8
"""The largest turn of the picture about its upright axis, in radians: it becomes narrower."""
LEAN = 0.15
BENT = 0.06
"""Standard deviation of how far parts move, in halves of the picture."""
MIRRORED_SHARE = 0.3
_BATCH = 512


@torch.no_grad()
def cutout_view_sets(folder: Path, split: str, device: torch.device) -> ViewSets:
    """`THINGS` things of each cutout of a pack; nothing is known of their angles.

    Arguments and errors as for `packs.pack_view_sets`.
    """
    pictures = pack_cutouts(folder, split, device)
    each = pictures.repeat_interleave(THINGS * VIEWS, 0)
    layers = torch.cat([_seen_anew(batch) for batch in each.split(_BATCH)]).unflatten(0, (-1, VIEWS))
    angles = torch.zeros(layers.shape[:2], device=device)
    return ViewSets(layers, angles, angles, torch.zeros(len(layers), dtype=torch.bool, device=device))


def _seen_anew(pictures: UInt8[Tensor, "n 4 size size"]) -> UInt8[Tensor, "n 4 size size"]:
    """Narrower, leaning, bent, perhaps mirrored, and lit from a side."""
    draws, count, size = Draws(pictures.device), len(pictures), pictures.shape[-1]
    across = (1 - 2 * draws.chance(count, MIRRORED_SHARE).view(-1)) / draws.between(count, -TURN, TURN).cos()
    lean, zero = draws.between(count, -LEAN, LEAN), torch.zeros_like(across)
    theta = torch.stack([across, lean, zero, zero, torch.ones_like(across), zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [count, 4, size, size], align_corners=False)
    bent = BENT * draws.amounts(count) * draws.smooth(count, 2, 4, size)
    seen = F.grid_sample(pictures.float() / 255, grid + bent.movedim(1, -1), align_corners=False)
    side = 0.3 * torch.randn(count, 1, 1, 2, device=pictures.device)
    rgb, alpha = seen[:, :3] * (side * grid).sum(-1)[:, None].exp(), seen[:, 3:]
    return (255 * torch.cat([torch.minimum(rgb, alpha), alpha], dim=1)).round().to(torch.uint8)
