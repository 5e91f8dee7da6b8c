"""Models in common formats, read by the assimp library."""

from __future__ import annotations

import re
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np

from dreambooth3d.toybox.pretraining.meshes.textured import Material, MeshError, TexturedMesh, joined
from dreambooth3d.toybox.pretraining.meshes.textures import FindTexture, textured


def has_library() -> bool:
    """Whether pyassimp finds the assimp library, which it does not bring."""
    try:
        import_module("pyassimp")
    except BaseException as error:  # pyassimp's error is no Exception
        if type(error).__name__ != "AssimpError":
            raise
        return False
    return True


def read_assimp(path: Path, find: FindTexture, *, modulate: bool = False) -> TexturedMesh:
    """A model in one of assimp's formats (OBJ, AC3D, Collada, MD2, MD3, B3D, glTF and others), in its bind pose.

    Args:
        path: the file.
        find: finds its textures.
        modulate: whether textures are multiplied by the material's colour.

    Raises:
        MeshError: assimp cannot read it, or a texture is missing.
    """
    import pyassimp
    from pyassimp import postprocess as step

    steps = (
        step.aiProcess_Triangulate
        | step.aiProcess_PreTransformVertices
        | step.aiProcess_JoinIdenticalVertices
        | step.aiProcess_TransformUVCoords
        | step.aiProcess_SortByPType
    )
    try:
        with pyassimp.load(str(path), processing=steps) as scene:
            materials = [_assimp_material(material, find, modulate) for material in scene.materials]
            return joined([_assimp_part(part, materials) for part in scene.meshes if _triangles(part)])
    except MeshError:
        raise
    except (pyassimp.AssimpError, ValueError, IndexError, OSError) as error:
        raise MeshError(f"{path}: {error}") from error


def _triangles(part) -> bool:
    return len(part.faces) > 0 and len(part.faces[0]) == 3


def _assimp_material(material, find: FindTexture, modulate: bool) -> Material | MeshError:
    values = dict(dict.items(material.properties))
    red, green, blue = (float(value) for value in list(values.get(("diffuse", 0), (0.7, 0.7, 0.7)))[:3])
    opacity = float(values.get(("opacity", 0), 1.0))
    name = values.get(("file", 1))
    if not name:
        return Material((red, green, blue, opacity))
    try:
        return textured(name, find, (red, green, blue, opacity) if modulate else (1.0, 1.0, 1.0, opacity))
    except MeshError as error:
        return error


def _assimp_part(part, materials: list[Material | MeshError]) -> TexturedMesh:
    material = materials[part.materialindex]
    if isinstance(material, MeshError):
        raise material
    count = len(part.vertices)
    coordinates = np.asarray(part.texturecoords)
    uv = coordinates[0, :, :2] if coordinates.ndim == 3 and len(coordinates) else np.zeros((count, 2))
    normals = np.asarray(part.normals) if len(part.normals) == count else None
    faces = np.asarray(part.faces, np.int64).reshape(-1, 3)
    return TexturedMesh(np.asarray(part.vertices), faces, uv, normals, np.zeros(len(faces), np.int64), (material,))


def read_acc(path: Path, find: FindTexture) -> TexturedMesh:
    """AC3D as TORCS extends it: several layers of textures, of which the first counts."""
    text = path.read_text("latin-1")
    text = re.sub(r'^texture\s+("?)([^"\s]+)\1\s+base[ \t\r]*$', r'texture "\2"', text, flags=re.M)
    text = re.sub(r'^texture\s+"?[^"\n]+"?\s+(tiled|skids|shad)[ \t\r]*$\n?', "", text, flags=re.M)
    text = re.sub(r'^texture\s+("?)empty_texture_no_mapping\1.*$\n?', "", text, flags=re.M)
    text = re.sub(r"^(\d+[ \t]+\S+[ \t]+\S+)(?:[ \t]+\S+)+[ \t\r]*$", r"\1", text, flags=re.M)
    with tempfile.NamedTemporaryFile("w", suffix=".ac", encoding="latin-1") as plain:
        plain.write(text)
        plain.flush()
        return read_assimp(Path(plain.name), find, modulate=True)
