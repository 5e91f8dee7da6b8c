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
from dreambooth3d.export.material import AskMaterial
from dreambooth3d.kinds import load_representation
from dreambooth3d.representation.interface import Representation, SurfaceMaterial, Triangles

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
        material: at points of its surface, of an asset that has one.
        show: pictures as people look at it; those of `render` where they are the same.
    """

    density_and_color: DensityAndColor
    render: Render
    device: torch.device | str = "cpu"
    triangles: Triangles | None = None
    paint: Paint | None = None
    material: AskMaterial | None = None
    show: Render | None = None


def artifact_source(asset: RadianceField, samples_per_ray: int, device: torch.device | str = "cpu") -> Source:
    """What a stage has made, of whichever kind; see `asset_source`."""
    return asset_source(load_representation(asset, device).eval(), samples_per_ray)


def asset_source(asset: Representation, samples_per_ray: int) -> Source:
    """An asset of any kind, and its renders, without light, with that many samples to a ray."""

    def renders(shown: Representation) -> Render:
        def render(cameras: Cameras, size: int) -> Pictures:
            found = shown.render(cameras, size, samples_per_ray=samples_per_ray, background=torch.zeros(3)).cpu()
            return Pictures(found.color.float(), found.opacity.float())

        return render

    def ask(points: Tensor, normals: Tensor) -> SurfaceMaterial:
        found = asset.surface_material(points, normals)
        assert found is not None
        return found

    @torch.no_grad()
    def dense(points: Tensor) -> tuple[Tensor, Tensor]:
        found = asset.density_and_color(points)
        if found is None:
            raise EmptyFieldError(f"{asset.kind}: it has neither triangles nor a density, so there is no mesh.")
        return found

    with torch.no_grad():
        triangles = asset.triangles()
        one = torch.tensor([[0.0, 0.0, 1.0]], device=asset.device)
        has_material = asset.surface_material(one, one) is not None
    return Source(
        dense if triangles is None else _nearest(triangles),
        renders(asset.unlit()),
        asset.device,
        triangles,
        paint=_paint_of(asset) if triangles is not None and triangles.given else None,
        material=ask if has_material else None,
        show=renders(asset) if has_material else None,
    )


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
