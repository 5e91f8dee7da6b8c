"""The middle of a subject that photos were taken of anyhow: that of the box around its visual hull.

Photos from above do not show where a subject ends below, so its hull goes on there as a cone whose sections grow with
the square of the height; the subject begins where they grow more slowly.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from dreambooth3d.photos.cameras.placement import PlacedCameras

VOXELS = 64
REACH = 0.65
"""Half the side of the first box, in mean distances of the cameras: more than any frame shows."""
MARGIN_SHARE = 1 / 64
"""Of the frame, by which outlines are widened: cameras that are a little wrong would cut off parts of the subject."""
ROUNDS = 2
"""Of carving in a box that fits better."""
CONE_GROWTH = 1.3
"""Exponent of the height in a section's area, below which the hull is taken for the subject; 2 in a cone."""
CONE_STEP = 1.5
"""Factor on the height over which growth is measured."""
MAX_CONE_SHARE = 0.35
"""Of the hull's height that may be a cone."""


def subject_middle(placed: PlacedCameras, masks: Float[Tensor, "n height height"]) -> Float[Tensor, " 3"]:
    """(3,) middle of the subject's box, z up, in the units of the cameras' distances; the origin if nothing is left.

    Args:
        placed: the n cameras.
        masks: of the subject, in [0, 1]. A subject on the frame goes on beyond it.
    """
    reach = REACH * placed.cameras.distance.mean()
    margin = round(MARGIN_SHARE * masks.shape[-1])
    masks = max_pool2d(masks[:, None], 2 * margin + 1, 1, margin)[:, 0]
    low, high = torch.stack([-reach.expand(3), reach.expand(3)])
    for last in [False] * ROUNDS + [True]:
        solid = _carved(placed, masks, low, high)
        if not solid.any():
            return torch.zeros(3)
        step = (high - low) / VOXELS
        spans = [solid.any(dim=axes).nonzero()[[0, -1], 0] for axes in ((1, 2), (0, 2), (0, 1))]
        first, end = (torch.stack([span[side] for span in spans]).to(low) for side in (0, 1))
        if last:
            first[2] = _lowest_section(solid)
            return low + step * (first + end + 1) / 2
        low, high = low + step * (first - 1), low + step * (end + 2)
    raise AssertionError("the last round returns")


def _carved(placed: PlacedCameras, masks: Tensor, low: Tensor, high: Tensor) -> Bool[Tensor, "x y z"]:
    """Which voxels of a box all photos show as the subject."""
    share = (torch.arange(VOXELS) + 0.5) / VOXELS
    places = torch.stack(torch.meshgrid(*[share] * 3, indexing="ij"), dim=-1).view(-1, 3) * (high - low) + low
    pose = placed.cameras.camera_to_world.cpu()
    rotation, position = pose[:, :3, :3] @ placed.to_upright.cpu(), pose[:, :3, 3]
    half_width = torch.tan(torch.deg2rad(placed.cameras.fov_y_deg.cpu()) / 2)
    local = torch.einsum("nij,nki->nkj", rotation, places - position[:, None])
    plane = local[..., :2] / ((-local[..., 2:]).clamp(min=1e-3) * half_width[:, None, None])
    where = (plane * plane.new_tensor([1.0, -1.0]))[:, None]
    seen = grid_sample(masks.cpu()[:, None], where, align_corners=False, padding_mode="border")
    return (seen[:, 0, 0] > 0.5).all(dim=0).view(VOXELS, VOXELS, VOXELS)


def _lowest_section(solid: Bool[Tensor, "x y z"]) -> int:
    """The lowest layer of a hull that belongs to the subject."""
    area = solid.sum(dim=(0, 1)).float()
    lowest = int(area.nonzero()[0])
    for layer in range(lowest + 1, lowest + int(MAX_CONE_SHARE * (VOXELS - lowest))):
        height = layer - lowest + 0.5
        above = min(lowest + round(CONE_STEP * height + 1), VOXELS - 1)
        growth = (area[above] / area[layer]).log() / torch.tensor((above - lowest + 0.5) / height).log()
        if growth < CONE_GROWTH:
            return layer
    return lowest
