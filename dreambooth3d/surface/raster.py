"""Which triangle each pixel shows, and where on it: a z-buffer in plain PyTorch, on any device.

What a pixel shows is discrete and has no gradient. All that is computed from it has: the point where the pixel's ray
meets its triangle here, and how much of it an outline covers in `antialias`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.cameras import Viewpoints

NEAR = 1e-2
"""Distance in front of a camera below which triangles are left out, in world units."""
FRAGMENTS_AT_ONCE = 1 << 24
NOWHERE = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Projection:
    """Vertices as n cameras see them.

    Attributes:
        places: (n, v, 2) in pixels, x to the right and y down, so that pixel centres lie at halves.
        depth: (n, v) distance in front of the camera, along its axis.
        height, width: of the images in pixels.
    """

    places: Float[Tensor, "n v 2"]
    depth: Float[Tensor, "n v"]
    height: int
    width: int


@dataclass(frozen=True)
class Raster:
    """What n images show, without gradients.

    Attributes:
        faces: (n, height, width) the nearest triangle at each pixel's centre, -1 where there is none.
        depth: (n, height, width) its distance along the camera's axis, infinite where there is none.
    """

    faces: Int[Tensor, "n height width"]
    depth: Float[Tensor, "n height width"]


def project(vertices: Float[Tensor, "v 3"], cameras: Viewpoints, height: int, width: int) -> Projection:
    """Vertices (v, 3) in the images of n cameras; differentiable in both."""
    pose, half = cameras.camera_to_world, torch.tan(torch.deg2rad(cameras.fov_y_deg) / 2)[:, None]
    local = (vertices - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    depth = -local[..., 2]
    scale = 0.5 * height / (half * torch.where(depth > NEAR, depth, torch.full_like(depth, NEAR)))
    places = torch.stack([0.5 * width + local[..., 0] * scale, 0.5 * height - local[..., 1] * scale], dim=-1)
    return Projection(places, depth, height, width)


@torch.no_grad()
def rasterize(projection: Projection, faces: Int[Tensor, "f 3"]) -> Raster:
    """The nearest triangle at each pixel's centre; of equally near ones the first."""
    count, height, width = len(projection.places), projection.height, projection.width
    nearest = torch.full((count * height * width,), NOWHERE, dtype=torch.int64, device=faces.device)
    corners = projection.places.detach()[:, faces]  # (n, f, 3, 2)
    low, sides = _boxes(corners, projection)
    areas = sides.prod(dim=-1) * (projection.depth[:, faces] > NEAR).all(dim=-1)
    kept = areas.flatten().nonzero()[:, 0]
    areas, until = areas.flatten()[kept], areas.flatten()[kept].cumsum(0)
    inverse = 1 / projection.depth[:, faces].flatten(0, 1)
    for part in _parts(until):
        triangle = kept[part].repeat_interleave(areas[part])
        place = torch.arange(len(triangle), device=faces.device)
        place -= (until[part] - areas[part] - (until[part][0] - areas[part][0])).repeat_interleave(areas[part])
        across = sides.view(-1, 2)[triangle, 0]
        pixel = low.view(-1, 2)[triangle] + torch.stack([place % across, place // across], dim=-1)
        weights, hit = _inside(corners.flatten(0, 1)[triangle] - (pixel[:, None] + 0.5))
        depth = 1 / (weights * inverse[triangle]).sum(dim=-1)
        view, face = triangle // len(faces), triangle % len(faces)
        index = (view * height + pixel[:, 1]) * width + pixel[:, 0]
        # A positive float's bits grow with it, so that the smallest key is the nearest triangle's.
        key = (depth.view(torch.int32).long() << 32) | face
        nearest.scatter_reduce_(0, index[hit], key[hit], "amin")
    found = nearest != NOWHERE
    shown = torch.where(found, nearest & 0xFFFFFFFF, -1)
    depth = torch.where(found, (nearest >> 32).int().view(torch.float32), torch.inf)
    return Raster(shown.view(count, height, width), depth.view(count, height, width))


def _boxes(corners: Tensor, projection: Projection) -> tuple[Tensor, Tensor]:
    """(n, f, 2) first pixel and (n, f, 2) number of pixels across and down whose centres may lie in each triangle."""
    size = torch.tensor([projection.width, projection.height], device=corners.device)
    low = (corners.amin(dim=2) - 0.5).ceil().clamp(min=0).minimum(size)
    high = (corners.amax(dim=2) - 0.5).floor().clamp(min=-1).minimum(size - 1)
    return low.long(), (high - low + 1).clamp(min=0).long()


def _parts(until: Tensor) -> list[slice]:
    """Runs of triangles of which each has not too many fragments, given the sums of fragments."""
    if len(until) == 0:
        return []
    if until[-1] <= FRAGMENTS_AT_ONCE:
        return [slice(0, len(until))]
    number = until // FRAGMENTS_AT_ONCE
    starts = [0, *((number.diff() != 0).nonzero()[:, 0] + 1).tolist(), len(until)]
    return [slice(first, second) for first, second in pairwise(starts)]


def _inside(corners: Tensor) -> tuple[Tensor, Tensor]:
    """(k, 3) barycentric coordinates of the origin in triangles (k, 3, 2) of the plane, and (k,) whether it is inside.

    Both turns count. The borders count, so that no pixel falls between two triangles.
    """
    x, y = corners.unbind(-1)
    after = [1, 2, 0], [2, 0, 1]
    weights = x[:, after[0]] * y[:, after[1]] - y[:, after[0]] * x[:, after[1]]
    total = weights.sum(dim=-1, keepdim=True)
    hit = ((weights >= 0).all(dim=-1) | (weights <= 0).all(dim=-1)) & (total[:, 0] != 0)
    return weights / torch.where(total == 0, 1.0, total), hit


def meet(
    corners: Float[Tensor, "k 3 3"], origins: Float[Tensor, "k 3"], directions: Float[Tensor, "k 3"]
) -> tuple[Float[Tensor, "k 3"], Float[Tensor, " k"]]:
    """Where rays meet the planes of their triangles, differentiable in both.

    Args:
        corners: (k, 3, 3) of each ray's triangle.
        origins, directions: (k, 3); directions of unit length.

    Returns:
        Barycentric coordinates (k, 3) and the distance along each ray (k,).

    Source: Moeller and Trumbore 1997, "Fast, Minimum Storage Ray-Triangle Intersection".
    """
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across, start = torch.linalg.cross(directions, second), origins - corners[:, 0]
    volume = (first * across).sum(-1)
    volume = torch.where(volume.abs() < 1e-12, 1e-12, volume)
    up = torch.linalg.cross(start, first)
    u, v = (start * across).sum(-1) / volume, (directions * up).sum(-1) / volume
    return torch.stack([1 - u - v, u, v], dim=-1), (second * up).sum(-1) / volume
