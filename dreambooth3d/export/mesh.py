"""A triangle mesh with a texture or with colours at its vertices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class Mesh:
    """A surface in world coordinates (z up, the front towards +x).

    Attributes:
        vertices: (v, 3) float32 in world units.
        faces: (f, 3) int64, counter-clockwise seen from outside.
        normals: (v, 3) float32 of unit length, outward.
        colors: (v, 3) float32 in [0, 1], as they look in an image (sRGB), or None.
        uv: (v, 2) float32 in [0, 1], from the texture's left and lower edge, or None; vertices on seams occur twice.
        texture: (size, size, 3) uint8 in sRGB, its first row on top, or None.
        metallic_roughness: (size, size, 3) uint8, roughness in green and metalness in blue as in glTF, or None.
        normal_map: (size, size, 3) uint8, normals in tangent space from [-1, 1], or None.
    """

    vertices: Float[ndarray, "v 3"]
    faces: Int[ndarray, "f 3"]
    normals: Float[ndarray, "v 3"]
    colors: Float[ndarray, "v 3"] | None = None
    uv: Float[ndarray, "v 2"] | None = None
    texture: ndarray | None = None
    metallic_roughness: ndarray | None = None
    normal_map: ndarray | None = None

    @property
    def is_textured(self) -> bool:
        """Whether its colours are a texture's."""
        return self.texture is not None and self.uv is not None

    @property
    def longest_side(self) -> float:
        """Of the upright box around it."""
        return float((self.vertices.max(axis=0) - self.vertices.min(axis=0)).max())

    def facts(self) -> dict[str, float]:
        """Counts, and whether the surface is closed; seams of the texture are no borders."""
        surface = trimesh.Trimesh(self.vertices, self.faces, process=True)
        return {
            "mesh_vertices": len(self.vertices),
            "mesh_faces": len(self.faces),
            "mesh_parts": surface.body_count,
            "mesh_watertight": float(surface.is_watertight),
            "mesh_volume": float(surface.volume),
        }

    def colors_at(
        self, triangles: Int[ndarray, " points"], weights: Float[ndarray, "points 3"]
    ) -> Float[ndarray, "points 3"]:
        """(points, 3) colours in [0, 1] at points given by their triangle and the weights of its corners."""
        corners = self.faces[triangles]
        if self.texture is not None and self.uv is not None:
            return look_up(self.texture, np.einsum("nk,nkc->nc", weights, self.uv[corners]))
        if self.colors is None:
            return np.full((len(triangles), 3), 0.5, np.float32)
        return np.einsum("nk,nkc->nc", weights, self.colors[corners])

    def scaled(self, factor: float) -> Mesh:
        """The mesh made larger around the origin."""
        return replace(self, vertices=self.vertices * np.float32(factor))


def look_up(texture: ndarray, uv: Float[ndarray, "points 2"]) -> Float[ndarray, "points 3"]:
    """(points, 3) bilinear values in [0, 1] of a texture (height, width, 3) of uint8."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns = [(left + step).clip(0, width - 1) for step in (0, 1)]
    rows = [(top + step).clip(0, height - 1) for step in (0, 1)]
    upper, lower = (texture[row, columns[0]] * (1 - across) + texture[row, columns[1]] * across for row in rows)
    return (upper * (1 - down) + lower * down).astype(np.float32) / 255
