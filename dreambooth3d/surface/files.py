"""Meshes that a user gives."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import trimesh
from trimesh.visual import TextureVisuals

from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.mesh_file import MeshFileConfig
from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.surface.environment import PROCEDURAL, environment_of, find_environment
from dreambooth3d.surface.given import given_file, require_unchanged
from dreambooth3d.weights import sha256_file

RADIUS = 0.8
"""Of the ball around a subject, as of any other thing in the world here."""
Y_UP = (".glb", ".gltf")
SECTIONS = ("mesh", "sketch", "painted")
"""Of a stage, which may name a file."""
Distilled = TypeVar("Distilled", bound=DistillConfig)


def read_mesh(path: Path | str) -> trimesh.Trimesh:
    """A mesh of any format that trimesh reads, in the middle of the ball of radius 0.8; textures are not read.

    glTF stands with y up and its front towards +z; other formats are taken to stand as the world here, z up. Vertices
    keep their order, and the UV map its coordinates.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no triangles.
    """
    path = find_mesh(path)
    try:
        mesh = trimesh.load_mesh(path, process=False)
    except Exception as error:  # each format's reader raises what it likes
        raise ConfigError(f"{path}: cannot be read as a mesh ({gist(error)}). Export it as GLB, OBJ or PLY.") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise ConfigError(f"{path}: holds no triangles. Export it as a mesh of triangles.")
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    if path.suffix.lower() in Y_UP:
        vertices = vertices[:, [2, 0, 1]]
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    size = np.linalg.norm(vertices - middle, axis=1).max()
    if not 0 < size < np.inf:
        raise ConfigError(f"{path}: its triangles have no size, or none that is finite. Export it anew.")
    placed = trimesh.Trimesh((vertices - middle) * (RADIUS / size), mesh.faces, process=False)
    if (uv := getattr(mesh.visual, "uv", None)) is not None and len(uv) == len(vertices):
        placed.visual = TextureVisuals(uv=np.asarray(uv, dtype=np.float64))
    return placed


def find_mesh(path: Path | str) -> Path:
    """A file that a setting names, seen from the working directory or the checkout.

    Raises:
        ConfigError: there is no such file, or it is empty.
    """
    found = given_file(path)
    if found is None:
        raise ConfigError(f"{path}: there is no such file. Give a mesh such as chair.glb or chair.obj.")
    if found.stat().st_size == 0:
        raise ConfigError(f"{path}: is empty. Give a mesh such as chair.glb or chair.obj.")
    return found


def read_given(config: MeshFileConfig) -> trimesh.Trimesh:
    """The mesh that a section names; see `read_mesh`.

    Raises:
        ConfigError: as for `read_mesh`, or the file is another than when the run began.
    """
    assert config.file is not None
    path = find_mesh(config.file)
    require_unchanged(path, config.digest)
    return read_mesh(path)


def with_mesh_digests(settings: Distilled) -> Distilled:
    """A stage's settings, in which each mesh and environment that they name is known by its contents.

    Raises:
        ConfigError: there is no such file.
    """
    changes: dict[str, MeshFileConfig] = {}
    for name in SECTIONS:
        section: MeshFileConfig | None = getattr(settings, name)
        if section is not None and section.file is not None:
            changes[name] = section.model_copy(update={"digest": sha256_file(find_mesh(section.file))})
    mesh = changes.get("mesh", settings.mesh)
    if isinstance(mesh, MeshConfig) and mesh.light.environment not in PROCEDURAL:
        light = mesh.light.model_copy(update={"digest": sha256_file(find_environment(mesh.light.environment))})
        changes["mesh"] = mesh.model_copy(update={"light": light})
    return settings.model_copy(update=changes) if changes else settings


def check_meshes(*stages: DistillConfig) -> None:
    """Read each mesh, and each environment that lights one, that stages' settings name.

    Raises:
        ConfigError: as for `read_mesh` and `environment_of`.
    """
    for section in (getattr(settings, name) for settings in stages for name in SECTIONS):
        if section is not None and section.file is not None:
            read_mesh(section.file)
    for mesh in (settings.mesh for settings in stages):
        if mesh is not None and mesh.material == "pbr":
            environment_of(mesh.light)
