"""Where Gaussians begin: in a ball, on points, or on what is seen of another asset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.representation.interface import Representation

NEIGHBOURS = 3
OVERLAP = 0.6
"""Standard deviation of a Gaussian in distances to its neighbours."""
THICKNESS = 0.4
"""Of a Gaussian on a surface, across it, in standard deviations along it."""
SOLID = 0.9
"""Opacity of a pixel from which it shows a surface."""
SEEN_SIZE = 64
SURFACE_OPACITY = 0.9


@dataclass(frozen=True)
class Start:
    """What n Gaussians begin with.

    Attributes:
        positions: (n, 3) in world units.
        scales: (n, 3) standard deviations along their axes in world units.
        rotations: (n, 4) unit quaternions, the real part first.
        opacities: (n,) in (0, 1).
        colors: (n, 3) in [0, 1].
    """

    positions: Float[Tensor, "n 3"]
    scales: Float[Tensor, "n 3"]
    rotations: Float[Tensor, "n 4"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "n 3"]


def ball(count: int, radius: float, opacity: float) -> Start:
    """Evenly random in a ball about the origin, grey with some variation; from PyTorch's global generator."""
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    points = directions * radius * torch.rand(count, 1) ** (1 / 3)
    return on_points(points, 0.4 + 0.2 * torch.rand(count, 3), opacity)


def on_points(
    points: Float[Tensor, "n 3"],
    colors: Float[Tensor, "n 3"],
    opacity: float = SURFACE_OPACITY,
    normals: Float[Tensor, "n 3"] | None = None,
) -> Start:
    """One at each point, as wide as the distance to its neighbours; thin along normals (n, 3) where these are known.

    Source: Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering", section 5.1.
    """
    width = OVERLAP * _spacing(points)
    scales = width[:, None].repeat(1, 3)
    if normals is not None:
        scales[:, 2] *= THICKNESS
        rotations = _from_z(normals)
    else:
        rotations = torch.tensor([1.0, 0.0, 0.0, 0.0], device=points.device).repeat(len(points), 1)
    return Start(points, scales, rotations, torch.full_like(width, opacity), colors)


def _spacing(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """(n,) root mean square distance to the nearest others."""
    places = points.detach().cpu().numpy()
    near = min(NEIGHBOURS + 1, len(places))
    if near < 2:
        return torch.full_like(points[:, 0], 0.1)
    distances, _ = cKDTree(places).query(places, k=near)
    width = np.sqrt(np.square(distances[:, 1:]).mean(axis=1)).clip(1e-4, 0.5)
    return torch.from_numpy(width).to(points)


def _from_z(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """(n, 4) quaternions of the shortest turns that take z to unit normals (n, 3)."""
    x, y, z = normals.unbind(-1)
    turns = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=-1)
    upside_down = torch.tensor([0.0, 1.0, 0.0, 0.0], device=normals.device)
    turns = torch.where((z < -1 + 1e-6)[:, None], upside_down, turns)
    return torch.nn.functional.normalize(turns, dim=-1)


def surroundings(device: torch.device | str, azimuths: int = 6) -> Cameras:
    """Cameras all around, from a little below to far above."""
    elevations = (-25.0, 0.0, 30.0, 65.0)
    azimuth = torch.arange(azimuths * len(elevations)) * (360.0 / azimuths / len(elevations))
    elevation = torch.tensor(elevations).repeat(azimuths)
    full = torch.ones_like(azimuth)
    return Cameras(azimuth, elevation, 2.5 * full, 42.0 * full).to(device)


@torch.no_grad()
def on_what_is_seen(source: Representation, count: int) -> Start | None:
    """On the surface of another asset as it is seen from all around, spread evenly; None if nothing is seen.

    Args:
        count: how many at most; as a rule nearly as many.
    """
    points, normals, colors = [], [], []
    cameras = surroundings(source.device)
    for index in range(len(cameras)):
        one = cameras[index : index + 1]
        shown = source.render(one, SEEN_SIZE, background=torch.zeros(3), with_normals=True)
        assert shown.normals is not None
        origins, directions = one.rays(SEEN_SIZE, SEEN_SIZE)
        solid = shown.opacity[0] > SOLID
        points.append((origins[0] + shown.depth[0, ..., None] * directions[0])[solid])
        normals.append(shown.normals[0].permute(1, 2, 0)[solid])
        colors.append(shown.color[0].permute(1, 2, 0)[solid] / shown.opacity[0][solid][:, None])
    places = torch.cat(points)
    if len(places) == 0:
        return None
    chosen = _spread(places, count)
    colors, normals = torch.cat(colors)[chosen].clamp(0, 1), torch.cat(normals)[chosen]
    return on_points(places[chosen], colors, SURFACE_OPACITY, torch.nn.functional.normalize(normals, dim=-1))


def _spread(points: Float[Tensor, "n 3"], count: int) -> Tensor:
    """Indices of at most `count` of the points, one in each of as many cells of a grid."""
    shuffled = torch.randperm(len(points))
    places = points.cpu().numpy()[shuffled.numpy()]
    fine, coarse, kept = 1e-3, 0.5, np.arange(min(count, len(places)))
    for _ in range(20):
        width = (fine * coarse) ** 0.5
        _, first = np.unique(np.floor(places / width).astype(np.int64), axis=0, return_index=True)
        if len(first) > count:
            fine = width
        else:
            coarse, kept = width, first
    return shuffled[torch.from_numpy(kept)].to(points.device)
