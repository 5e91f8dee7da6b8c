"""The solid that Gaussians show from outside, as a grid: they lie on its surface and leave the inside empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import grid_sample

from dreambooth3d.cameras import Cameras
from dreambooth3d.gaussians.views import Views

RESOLUTION = 64
VIEW_SIZE = 96
AZIMUTHS = 8
ELEVATIONS_DEG = (-20.0, 15.0, 50.0)
DISTANCE, FOV_Y_DEG = 2.5, 48.0
"""So that the whole unit ball is in the frame."""
SEEN = 0.5
"""Opacity of a pixel from which there is a surface."""
WITNESSES = 4
"""Views, since a gap between Gaussians lets single ones look inside."""
BAND = 2.5
"""Voxels on either side of a surface in which its distance is told."""
SURFACE_DENSITY = 10.0
"""Density in inverse world units where the surface is: `export_asset.mesh_threshold` by default."""
INNER_DENSITY = 40.0


@dataclass(frozen=True)
class Solid:
    """A box of voxels.

    Attributes:
        low, high: (3,) corners of the box, in world units: centres of the first and of the last voxel.
        layers: (4, z, y, x) signed distance from the surface in bands, positive outside, in [-1, 1]; and albedo.
    """

    low: Float[Tensor, " 3"]
    high: Float[Tensor, " 3"]
    layers: Float[Tensor, "4 z y x"]

    def density_and_color(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Density (n,) in inverse world units, which falls to 0 outside, and albedo (n, 3) at points (n, 3)."""
        places = 2 * (points - self.low) / (self.high - self.low) - 1
        found = grid_sample(self.layers[None], places[None, None, None], align_corners=True, padding_mode="border")
        distance, color = found[0, 0, 0, 0], found[0, 1:, 0, 0].t()
        inside = (places.abs() <= 1).all(dim=-1)
        density = (SURFACE_DENSITY - INNER_DENSITY * distance).clamp(0, INNER_DENSITY)
        return density * inside, color

    @staticmethod
    @torch.no_grad()
    def of(render: Callable[[Cameras, int], Views], low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]) -> Solid:
        """What views from all around show.

        Distances from the surface are means over the views that see it near. What a view sees past is empty, and so is
        what lies before the surface in `WITNESSES` of them; the rest is full.

        Args:
            render: views of cameras with as many pixels per side.
            low, high: (3,) corners of a box around all that is seen.

        Source: Curless and Levoy 1996, "A Volumetric Method for Building Complex Models from Range Images".
        """
        steps = torch.linspace(0, 1, RESOLUTION, device=low.device)
        x, y, z = (low + (high - low) * steps[:, None]).unbind(-1)
        z, y, x = torch.meshgrid(z, y, x, indexing="ij")
        points = torch.stack([x, y, z], dim=-1).view(-1, 3)
        band = BAND * float((high - low).max()) / (RESOLUTION - 1)
        total, weights = torch.zeros_like(points[:, 0]), torch.zeros_like(points[:, 0])
        colors = torch.zeros_like(points)
        outside, passed = torch.zeros_like(total, dtype=torch.bool), torch.zeros_like(total)
        for cameras in _around(low.device):
            shown = _looked_up(render(cameras, VIEW_SIZE), cameras, points)
            distance = shown.depth - shown.range
            outside |= shown.opacity < SEEN
            passed += (distance > band) & (shown.opacity >= SEEN)
            near = ((shown.opacity >= SEEN) & (distance.abs() <= band)).to(total)
            total += near * distance / band
            weights += near
            colors += near[:, None] * shown.color
        distance = torch.where(weights > 0, total / weights.clamp(min=1), -torch.ones_like(total))
        empty = outside | (passed >= WITNESSES)
        distance = torch.where(empty, distance.clamp(min=1 / BAND), distance)
        shape = (RESOLUTION, RESOLUTION, RESOLUTION)
        colors = _spread((colors / weights.clamp(min=1)[:, None]).view(*shape, 3), (weights > 0).view(shape))
        return Solid(low, high, torch.cat([distance.view(1, *shape), colors.permute(3, 0, 1, 2)]))


@dataclass(frozen=True)
class _Seen:
    """What one view shows at the pixels of p points, and how far from the camera the points are."""

    color: Float[Tensor, "p 3"]
    opacity: Float[Tensor, " p"]
    depth: Float[Tensor, " p"]
    range: Float[Tensor, " p"]


def _around(device: torch.device) -> list[Cameras]:
    """Single cameras."""
    azimuth = torch.arange(AZIMUTHS * len(ELEVATIONS_DEG), device=device) * (360.0 / AZIMUTHS / len(ELEVATIONS_DEG))
    elevation = torch.tensor(ELEVATIONS_DEG, device=device).repeat(AZIMUTHS)
    full = torch.ones_like(azimuth)
    cameras = Cameras(azimuth, elevation, full * DISTANCE, full * FOV_Y_DEG)
    return [cameras[index : index + 1] for index in range(len(azimuth))]


def _looked_up(views: Views, cameras: Cameras, points: Float[Tensor, "p 3"]) -> _Seen:
    pose = cameras.camera_to_world[0]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    scale = 1 / (local[:, 2:] * -torch.tan(torch.deg2rad(cameras.fov_y_deg[0]) / 2))
    places = (local[:, :2] * scale * torch.tensor([1.0, -1.0], device=points.device))[None, None]
    layers = torch.cat([views.color, views.opacity[..., None]], dim=-1)
    smooth = grid_sample(layers.permute(0, 3, 1, 2), places, align_corners=False)[0, :, 0].t()
    # Depths beside an edge are not to be mixed.
    depth = grid_sample(views.depth[:, None], places, mode="nearest", align_corners=False)[0, 0, 0]
    opacity = smooth[:, 3]
    return _Seen(smooth[:, :3] / opacity.clamp(min=1e-6)[:, None], opacity, depth, local.norm(dim=-1))


def _spread(colors: Float[Tensor, "z y x 3"], known: Tensor) -> Float[Tensor, "z y x 3"]:
    """Colours of voxels, those that no view tells as the nearest ones that are known."""
    if not known.any():
        return colors
    nearest = ndimage.distance_transform_edt(~known.cpu().numpy(), return_distances=False, return_indices=True)
    z, y, x = torch.from_numpy(nearest).long().to(colors.device)
    return colors[z, y, x].clamp(0, 1)
