"""A triangle mesh with vertex colours, from any asset, as GLB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from scipy import ndimage
from skimage import measure
from torch import Tensor
from trimesh.exchange.gltf import export_glb

from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.nerf.field.parts import large_parts
from dreambooth3d.representation.interface import Representation

DensityAndColor = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (n, 3) in world units -> density (n,) in inverse world units and albedo (n, 3) in [0, 1]."""

BOUND = 1.0
_CHUNK_POINTS = 1 << 18


@dataclass(frozen=True)
class Mesh:
    """A surface in world coordinates (z up, the front towards +x).

    Attributes:
        vertices: (v, 3) float32 in world units.
        faces: (f, 3) int64, counter-clockwise seen from outside.
        normals: (v, 3) float32 of unit length, outward.
        colors: (v, 3) float32 in [0, 1], as they look in an image (sRGB).
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    colors: np.ndarray

    def facts(self) -> dict[str, float]:
        """Counts, and whether the surface is closed."""
        surface = trimesh.Trimesh(self.vertices, self.faces, process=False)
        return {
            "mesh_vertices": len(self.vertices),
            "mesh_faces": len(self.faces),
            "mesh_parts": surface.body_count,
            "mesh_watertight": float(surface.is_watertight),
            "mesh_volume": float(surface.volume),
        }


def surface_of(asset: Representation, resolution: int, threshold: float) -> Mesh:
    """An asset's own triangles, else where its density crosses a threshold; see `extract_mesh`.

    Raises:
        EmptyFieldError: it has no surface.
    """

    def dense(points: Tensor) -> tuple[Tensor, Tensor]:
        found = asset.density_and_color(points)
        if found is None:
            raise EmptyFieldError(f"{asset.kind}: it has neither triangles nor a density, so there is no mesh.")
        return found

    own = asset.triangles()
    if own is None:
        return extract_mesh(dense, resolution, threshold, asset.device)
    if len(own.faces) == 0:
        raise EmptyFieldError(f"{asset.kind}: it has no triangles, so there is no mesh. Train longer, or another seed.")
    vertices, colors = (values.detach().float().cpu().numpy() for values in (own.vertices, own.colors))
    surface = trimesh.Trimesh(vertices, own.faces.cpu().numpy(), process=False)
    normals = np.asarray(surface.vertex_normals, dtype=np.float32)
    return Mesh(vertices, np.asarray(surface.faces, dtype=np.int64), normals, colors.clip(0, 1))


def extract_mesh(
    density_and_color: DensityAndColor, resolution: int, threshold: float, device: torch.device | str = "cpu"
) -> Mesh:
    """The surface where the density crosses a threshold.

    Parts smaller than 3 % of the largest one (floaters) and cavities that no camera can see are left out. The surface
    is closed, also where the field touches the cube [-1, 1]^3.

    Args:
        density_and_color: the field.
        resolution: grid points per side of the cube.
        threshold: density of the surface, in inverse world units.
        device: where the field lives.

    Raises:
        EmptyFieldError: the density is nowhere above the threshold.

    Source: marching cubes as in Lewiner et al. (2003), by scikit-image.
    """
    density = sample_density(density_and_color, resolution, device)
    solid = _largest_parts(density, threshold)
    spacing = 2 * BOUND / (resolution - 1)
    # scikit-image names the direction for volumes indexed z, y, x; this one is x, y, z, which mirrors the winding.
    vertices, faces, _, _ = measure.marching_cubes(
        np.pad(solid, 1), level=threshold, gradient_direction="ascent", allow_degenerate=False
    )
    # One cell of padding closes the surface at the border of the cube.
    vertices = (vertices - 1) * spacing - BOUND
    mesh = trimesh.Trimesh(vertices, faces, process=True)
    normals = np.asarray(mesh.vertex_normals, dtype=np.float32)
    vertices = np.asarray(mesh.vertices, dtype=np.float32)
    # What a camera sees is the colour just beneath the surface, where a ray is absorbed.
    colors = _colors(density_and_color, vertices - 0.5 * spacing * normals, device)
    return Mesh(vertices, np.asarray(mesh.faces, dtype=np.int64), normals, colors)


@torch.no_grad()
def sample_density(density_and_color: DensityAndColor, resolution: int, device: torch.device | str) -> np.ndarray:
    """(resolution, resolution, resolution) float32 densities over [-1, 1]^3, indexed x, y, z."""
    axis = torch.linspace(-BOUND, BOUND, resolution, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    parts = [density_and_color(chunk)[0].reshape(-1).float().cpu() for chunk in points.split(_CHUNK_POINTS)]
    return torch.cat(parts).reshape(resolution, resolution, resolution).numpy()


@torch.no_grad()
def _colors(density_and_color: DensityAndColor, points: np.ndarray, device: torch.device | str) -> np.ndarray:
    chunks = torch.as_tensor(points, dtype=torch.float32, device=device).split(_CHUNK_POINTS)
    return torch.cat([density_and_color(chunk)[1].float().cpu().clamp(0, 1) for chunk in chunks]).numpy()


def _largest_parts(density: np.ndarray, threshold: float) -> np.ndarray:
    """Densities with small floating parts emptied, hidden cavities filled, and clipped to twice the threshold.

    The clip keeps the interpolation between an empty and a very dense cell near their middle, instead of pressing the
    surface onto the empty one, which would show the grid as steps.
    """
    if not np.isfinite(density).all():
        raise EmptyFieldError("radiance field: its density is not finite, so it has no mesh. Train with another seed.")
    inside = density > threshold
    if not inside.any():
        raise EmptyFieldError(
            f"radiance field: no density exceeds {threshold:g} (the largest is {density.max():.3g}), so there is no"
            " surface for a mesh. Lower export_asset.mesh_threshold, or train longer."
        )
    kept = large_parts(inside)
    solid = np.clip(density, 0, 2 * threshold)
    solid[inside & ~kept] = 0
    cavities = ndimage.binary_fill_holes(kept) & ~kept
    solid[cavities] = 2 * threshold
    return solid


def to_gltf_axes(vectors: np.ndarray) -> np.ndarray:
    """Turn world vectors (n, 3), z up with the front towards +x, into glTF's: y up with the front towards +z."""
    return vectors[:, [1, 2, 0]]


def srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    """glTF keeps vertex colours linear, images keep them in sRGB (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def to_glb(mesh: Mesh) -> bytes:
    """A binary glTF file: y up, the front towards +z, vertex normals and linear 8-bit vertex colours."""
    linear = srgb_to_linear(mesh.colors)
    colors = np.concatenate([linear, np.ones_like(linear[:, :1])], axis=1)
    surface = trimesh.Trimesh(
        to_gltf_axes(mesh.vertices), mesh.faces, vertex_normals=to_gltf_axes(mesh.normals),
        vertex_colors=(colors * 255).round().astype(np.uint8), process=False,
    )  # fmt: skip
    scene = trimesh.Scene({"asset": surface})
    return export_glb(scene, include_normals=True)
