"""A mesh with its materials, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from dreambooth3d.cameras import SUBJECT_RADIUS
from dreambooth3d.errors import DreamBooth3DError

LARGEST_TEXTURE = 512


class MeshError(DreamBooth3DError):
    """A file that holds no usable textured mesh."""


@dataclass(frozen=True)
class Material:
    """How a part of a surface looks.

    Attributes:
        color: red, green, blue and opacity in [0, 1], by which the texture is multiplied.
        texture: (height, width, 4) in RGBA, its first row at v = 1; None is white.
    """

    color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: UInt8[ndarray, "height width 4"] | None = None


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles with their materials.

    Attributes:
        vertices: (vertices, 3) positions.
        faces: (faces, 3) vertex numbers.
        uv: (vertices, 2) texture coordinates, v upwards.
        normals: (vertices, 3) of unit length, or None where the file has none.
        material_of: (faces,) numbers of `materials`.
        materials: what the faces are made of.
    """

    vertices: Float[ndarray, "vertices 3"]
    faces: Integer[ndarray, "faces 3"]
    uv: Float[ndarray, "vertices 2"]
    normals: Float[ndarray, "vertices 3"] | None
    material_of: Integer[ndarray, " faces"]
    materials: tuple[Material, ...]

    def normalized(self, axes: Float[ndarray, "3 3"]) -> TexturedMesh:
        """The mesh under `axes`, in the ball of radius `SUBJECT_RADIUS` around the middle of its bounding box.

        Raises:
            MeshError: no face, or one point only.
        """
        used = np.unique(self.faces)
        if not len(used) or not np.isfinite(self.vertices[used]).all():
            raise MeshError("no face, or a vertex that is not finite.")
        vertices = self.vertices @ np.asarray(axes).T
        low, high = vertices[used].min(0), vertices[used].max(0)
        vertices = vertices - (low + high) / 2
        radius = np.linalg.norm(vertices[used], axis=1).max()
        if radius == 0:
            raise MeshError("all faces lie in one point.")
        normals = None if self.normals is None else self.normals @ np.asarray(axes).T
        return replace(self, vertices=vertices * (SUBJECT_RADIUS / radius), normals=normals)

    def extents(self) -> Float[ndarray, " 3"]:
        """Width, depth and height of the bounding box."""
        used = self.vertices[np.unique(self.faces)]
        return used.max(0) - used.min(0)


def joined(parts: list[TexturedMesh]) -> TexturedMesh:
    """Several meshes as one.

    Raises:
        MeshError: there is none.
    """
    if not parts:
        raise MeshError("no triangles.")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    first = np.cumsum([0, *(len(part.materials) for part in parts)])
    normals = [part.normals if part.normals is not None else np.zeros_like(part.vertices) for part in parts]
    return TexturedMesh(
        np.concatenate([part.vertices for part in parts]).astype(np.float64),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]).astype(np.int64),
        np.concatenate([part.uv for part in parts]).astype(np.float64),
        np.concatenate(normals).astype(np.float64),
        np.concatenate([part.material_of + start for part, start in zip(parts, first, strict=False)]).astype(np.int64),
        tuple(material for part in parts for material in part.materials),
    )


@lru_cache(maxsize=64)
def read_texture(path: Path) -> UInt8[ndarray, "height width 4"]:
    """An image file as RGBA, at most `LARGEST_TEXTURE` pixels a side.

    Raises:
        MeshError: the file is no image that can be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I") or image.mode == "F":
                image = Image.fromarray((np.asarray(image, np.float64) / 65535 * 255).clip(0, 255).astype(np.uint8))
            picture = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, NotImplementedError, UnidentifiedImageError) as error:
        raise MeshError(f"{path}: no readable texture ({error}).") from error
    scale = LARGEST_TEXTURE / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(picture)
