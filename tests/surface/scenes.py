"""Surfaces and cameras for tests."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from dreambooth3d.cameras import TURNTABLE_DISTANCE, TURNTABLE_FOV_Y_DEG, Cameras, orbit_cameras
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.surface.antialias import antialias
from dreambooth3d.surface.grid import tetrahedral_grid
from dreambooth3d.surface.marching import Topology, surface_vertices, topology
from dreambooth3d.surface.raster import project, rasterize
from dreambooth3d.surface.surface_mesh import SurfaceMesh

AROUND = replace(
    orbit_cameras(torch.tensor([13.0, 100.0, 220.0, 300.0])), elevation_deg=torch.tensor([10.0, 40.0, -5.0, 25.0])
)
TINY = MeshConfig(resolution=16, texture=TextureConfig(encoding="dense", volume_resolution=16))


def ball(resolution: int = 24, radius: float = 0.45) -> tuple[Tensor, Topology]:
    """Vertices and triangles of a ball around the origin."""
    grid = tetrahedral_grid(resolution)
    signed = grid.vertices.norm(dim=1) - radius
    triangles = topology(grid, signed < 0)
    return surface_vertices(triangles, grid.vertices, signed), triangles


def torus(resolution: int = 32) -> tuple[Tensor, Topology]:
    """Vertices and triangles of a torus around z, which hides parts of itself."""
    grid = tetrahedral_grid(resolution)
    x, y, z = grid.vertices.unbind(1)
    signed = ((x.square() + y.square()).sqrt() - 0.5).square().add(z.square()).sqrt() - 0.2
    triangles = topology(grid, signed < 0)
    return surface_vertices(triangles, grid.vertices, signed), triangles


def silhouettes(vertices: Tensor, triangles: Topology, cameras: Cameras, size: int) -> Tensor:
    """(n, size, size) antialiased."""
    projection = project(vertices, cameras, size, size)
    raster = rasterize(projection, triangles.faces)
    shown = (raster.faces >= 0).float()[:, None]
    return antialias(shown, raster, projection, triangles)[:, 0]


def disc_area(radius: float, size: int) -> float:
    """Pixels that a ball around the origin covers in a view of the turntable."""
    slope = radius / math.sqrt(TURNTABLE_DISTANCE**2 - radius**2)
    return math.pi * (slope / math.tan(math.radians(TURNTABLE_FOV_Y_DEG / 2)) * size / 2) ** 2


def painted(made: SurfaceMesh, seed: int = 0) -> SurfaceMesh:
    """The same mesh, its colours at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in made.encoding.parameters():
            values.copy_(0.3 * torch.randn(values.shape, generator=generator))
    return made
