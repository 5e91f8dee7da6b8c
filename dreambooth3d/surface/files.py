"""Meshes that a user gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from dreambooth3d.errors import ConfigError

RADIUS = 0.8
"""Of the ball around a subject, as of any other thing in the world here."""
Y_UP = (".glb", ".gltf")


def read_mesh(path: Path | str) -> trimesh.Trimesh:
    """A mesh of any format that trimesh reads, in the middle of the ball of radius 0.8; textures are not read.

    glTF stands with y up and its front towards +z; other formats are taken to stand as the world here, z up.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no triangles.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file. Give a mesh such as chair.glb or chair.obj.")
    try:
        mesh = trimesh.load_mesh(path, process=False)
    except Exception as error:  # each format's reader raises what it likes
        raise ConfigError(f"{path}: cannot be read as a mesh ({error}). Export it as GLB, OBJ or PLY.") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise ConfigError(f"{path}: holds no triangles. Export it as a mesh of triangles.")
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    if path.suffix.lower() in Y_UP:
        vertices = vertices[:, [2, 0, 1]]
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    size = np.linalg.norm(vertices - middle, axis=1).max()
    return trimesh.Trimesh((vertices - middle) * (RADIUS / size), mesh.faces, process=False)
