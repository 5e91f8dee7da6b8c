"""From an asset to a mesh that looks like it: surface, few triangles, colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dreambooth3d.cameras import Cameras
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.export.casting import Pictures
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.source import Source
from dreambooth3d.export.surface import BOUND, decimated, own_surface, sample_density, silhouette_threshold, surface_at
from dreambooth3d.export.texture import paint_at, painted, textured, with_vertex_colors

SILHOUETTES = 12
"""Pictures by which the threshold is chosen."""


class MeshBuilder:
    """Makes meshes of one asset, in as many triangles and texels as one asks for.

    Args:
        source: the asset.
        config: resolutions, and what the surface is.
        cameras, pictures: the asset as it is seen, all around; its silhouettes and colours are what a mesh should have.

    Attributes:
        threshold: density of the surface, in inverse world units; None for an asset that is made of triangles.
        surface: in as many triangles as the grid, or the asset itself, gives.

    Raises:
        EmptyFieldError: the asset has no surface.
    """

    def __init__(self, source: Source, config: ExportConfig, cameras: Cameras, pictures: Pictures) -> None:
        self.source, self.config = source, config
        self.cameras, self.pictures = cameras, pictures
        self.threshold: float | None = None
        if source.triangles is not None:
            self.surface = own_surface(source.triangles)
            return
        density = sample_density(source.density_and_color, config.mesh_resolution, source.device)
        self.threshold = self._threshold(density)
        self.surface = surface_at(density, self.threshold)

    def build(self, max_triangles: int | None = None, texture_size: int | None = None) -> Mesh:
        """A mesh with colours; what is not given is the configuration's.

        A mesh that was given keeps its triangles, however many they are, unless fewer are asked for here.
        """
        if self.source.paint is not None and len(self.surface.faces) <= (max_triangles or len(self.surface.faces)):
            if self.config.colors == "vertices":
                return replace(self.surface, colors=paint_at(self.source.paint, self.surface.vertices), uv=None)
            return painted(self.surface, self.source.paint, texture_size or self.config.texture_size)
        mesh = self.shape(max_triangles)
        depth = 2 * BOUND / self.config.mesh_resolution * self.config.shell_cells
        seen = (self.cameras, self.pictures)
        if self.config.colors == "vertices":
            return with_vertex_colors(mesh, self.source, depth, *seen)
        return textured(mesh, self.source, texture_size or self.config.texture_size, depth, *seen)

    def shape(self, max_triangles: int | None = None) -> Mesh:
        """The same mesh without colours."""
        return decimated(self.surface, max_triangles or self.config.max_triangles)

    def _threshold(self, density: Float[ndarray, "x y z"]) -> float:
        if self.config.mesh_threshold != "silhouette":
            return self.config.mesh_threshold
        if not np.isfinite(density).all():
            return 1.0  # of no matter: such a density has no surface
        step = max(1, len(self.cameras) // SILHOUETTES)
        some = Pictures(self.pictures.light[::step], self.pictures.opacity[::step])
        return silhouette_threshold(density, self.cameras[::step], some)
