"""Views of Gaussians as the stages want them: depth along rays, normals, light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import Viewpoints
from dreambooth3d.gaussians.rasterization import Raster
from dreambooth3d.representation.shading import Shading


@dataclass(frozen=True)
class Views:
    """Square views of Gaussians.

    Attributes:
        color: (n, size, size, 3) without background: weighted by opacity.
        opacity: (n, size, size) in [0, 1].
        depth: (n, size, size) expected distance along the ray in world units, 0 where there is nothing.
        origins, directions: (n, size, size, 3) the pixels' rays.
    """

    color: Float[Tensor, "n size size 3"]
    opacity: Float[Tensor, "n size size"]
    depth: Float[Tensor, "n size size"]
    origins: Float[Tensor, "n size size 3"]
    directions: Float[Tensor, "n size size 3"]

    @staticmethod
    def of(raster: Raster, cameras: Viewpoints, size: int) -> Views:
        """All pixels of n cameras on the raster's device."""
        origins, directions = cameras.rays(size, size)
        shape = directions.shape[:-1]
        forward = -cameras.camera_to_world[:, None, None, :3, 2]
        depth = raster.depth.view(shape) / (directions * forward).sum(-1)
        return Views(raster.features.view(*shape, -1), raster.opacity.view(shape), depth, origins, directions)

    @property
    def points(self) -> Float[Tensor, "n size size 3"]:
        """(n, size, size, 3) what is seen, in world units."""
        return self.origins + self.depth[..., None] * self.directions

    def normals(self) -> Float[Tensor, "n size size 3"]:
        """(n, size, size, 3) of unit length, towards the camera, 0 where there is nothing; from the depths."""
        points, weight = self.points, self.opacity
        across, down = _slope(points, weight, 2), _slope(points, weight, 1)
        normals = torch.linalg.cross(down, across)
        # Where no neighbour says how the surface is turned, it faces the camera.
        lost = normals.norm(dim=-1, keepdim=True) < 1e-12
        normals = torch.where(lost, -self.directions, normals)
        normals = torch.nn.functional.normalize(normals, dim=-1, eps=1e-20)
        away = (normals * self.directions).sum(-1, keepdim=True) > 0
        return torch.where(away, -normals, normals) * (weight > 0)[..., None]

    def shaded(self, shading: Shading) -> Float[Tensor, "n size size 3"]:
        """(n, size, size, 3) colour under a light, weighted by opacity: pixels are lit, not single Gaussians."""
        if not shading.needs_normals:
            return self.color
        count, size = self.opacity.shape[:2]
        views = torch.arange(count, device=self.opacity.device).repeat_interleave(size * size)
        albedo = self.color / self.opacity.clamp(min=1e-6)[..., None]
        albedo, normals, points = (values.reshape(-1, 3) for values in (albedo, self.normals(), self.points))
        return shading.shade(albedo, normals, points, views).view_as(self.color) * self.opacity[..., None]


def _slope(points: Float[Tensor, "n h w 3"], weight: Float[Tensor, "n h w"], dim: int) -> Float[Tensor, "n h w 3"]:
    """(n, h, w, 3) change of the points from pixel to pixel along a dimension, from those neighbours that are there."""
    length = points.shape[dim]
    steps = points.diff(dim=dim)
    both = (weight.narrow(dim, 1, length - 1) * weight.narrow(dim, 0, length - 1))[..., None]
    none = torch.zeros_like(points.narrow(dim, 0, 1))
    total = torch.cat([none, both * steps], dim) + torch.cat([both * steps, none], dim)
    shares = torch.cat([none[..., :1], both], dim) + torch.cat([both, none[..., :1]], dim)
    return total / shares.clamp(min=1e-6)
