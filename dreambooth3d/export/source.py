"""What an export asks of an asset: its surface or its density, colours at points, and pictures from cameras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.spatial import KDTree
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Cameras
from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.export.casting import Pictures
from dreambooth3d.kinds import load_representation
from dreambooth3d.representation.interface import Representation, Triangles

DensityAndColor = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (n, 3) in world units -> density (n,) in inverse world units and albedo (n, 3) in [0, 1]."""
Paint = Callable[[Tensor], Tensor]
Render = Callable[[Cameras, int], Pictures]
"""Cameras and pixels per side -> square pictures, on the CPU."""


@dataclass(frozen=True)
class Source:
    """An asset as the export sees it.

    Attributes:
        density_and_color: at points on the device; of an asset that is made of triangles the density says nothing.
        render: its own pictures, which a mesh of it should look like.
        device: where it lives.
        triangles: its surface, of an asset that is made of them.
        paint: points (n, 3) of the surface -> albedo (n, 3) in [0, 1], of a mesh that was given and painted.
    """

    density_and_color: DensityAndColor
    render: Render
    device: torch.device | str = "cpu"
    triangles: Triangles | None = None
    paint: Paint | None = None


def artifact_source(asset: RadianceField, samples_per_ray: int, device: torch.device | str = "cpu") -> Source:
    """What a stage has made, of whichever kind; see `asset_source`."""
    return asset_source(load_representation(asset, device).eval(), samples_per_ray)


def asset_source(asset: Representation, samples_per_ray: int) -> Source:
    """An asset of any kind, and its renders with that many samples to a ray."""

    def render(cameras: Cameras, size: int) -> Pictures:
        found = asset.render(cameras, size, samples_per_ray=samples_per_ray, background=torch.zeros(3)).cpu()
        return Pictures(found.color.float(), found.opacity.float())

    @torch.no_grad()
    def dense(points: Tensor) -> tuple[Tensor, Tensor]:
        found = asset.density_and_color(points)
        if found is None:
            raise EmptyFieldError(f"{asset.kind}: it has neither triangles nor a density, so there is no mesh.")
        return found

    with torch.no_grad():
        triangles = asset.triangles()
    if triangles is None:
        return Source(dense, render, asset.device)
    return Source(_nearest(triangles), render, asset.device, triangles, _paint_of(asset) if triangles.given else None)


def _paint_of(asset: Representation) -> Paint:
    """The colours of a surface that was painted."""

    @torch.no_grad()
    def paint(points: Tensor) -> Tensor:
        found = asset.albedo_at(points.to(asset.device))
        if found is None:
            raise ValueError(f"{asset.kind}: it has given triangles and does not say how they are painted.")
        return found

    return paint


def _nearest(triangles: Triangles) -> DensityAndColor:
    """The colour of the nearest vertex, at a density of 1 everywhere."""
    tree, colors = KDTree(triangles.vertices.detach().float().cpu().numpy()), triangles.colors.detach().float()

    def colored(points: Tensor) -> tuple[Tensor, Tensor]:
        _, vertex = tree.query(points.detach().float().cpu().numpy())
        return torch.ones(len(points), device=points.device), colors.to(points.device)[torch.as_tensor(vertex)]

    return colored
