"""Meshes as binary glTF 2.0: y up, the front towards +z, a physically based material."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from trimesh.exchange.gltf import export_glb
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from dreambooth3d.export.material import vertex_tangents
from dreambooth3d.export.mesh import Mesh

GENERATOR = "DreamBooth3D"
ROUGHNESS = 0.9
_TANGENT = "_TANGENT"
"""As trimesh would name what it does not know."""
_VERTEX_DATA, _INDICES = 34962, 34963
"""OpenGL's names of the buffers that a view is uploaded to."""


@dataclass(frozen=True)
class Credits:
    """What a file says of itself.

    Attributes:
        name: of the asset.
        copyright: whose it is; empty is left out.
        extras: plain facts, such as subject, prompt, run and commit; those empty or unknown are left out.
    """

    name: str = "asset"
    copyright: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """The extras that say something."""
        return {key: value for key, value in self.extras.items() if value not in ("", "unknown")}


def to_glb(mesh: Mesh, credits: Credits = Credits()) -> bytes:
    """A mesh as a GLB file.

    Colours of vertices are linear there, as glTF wants them; those of textures are sRGB. The base colour is the
    asset's albedo: no light is baked into it. Lengths are taken for metres.

    Source: Khronos' glTF 2.0 specification.
    """
    surface = as_trimesh(mesh, to_gltf_axes)
    scene = trimesh.Scene()
    scene.add_geometry(surface, geom_name=credits.name, node_name=credits.name)

    about: dict[str, Any] = {"version": "2.0", "generator": GENERATOR}
    about |= {"copyright": credits.copyright} if credits.copyright else {}
    about |= {"extras": credits.facts()} if credits.facts() else {}

    def complete(tree: dict[str, Any]) -> None:
        tree["asset"] = about
        attributes = tree["meshes"][0]["primitives"][0]["attributes"]
        if _TANGENT in attributes:
            attributes["TANGENT"] = attributes.pop(_TANGENT)
        _name_targets(tree)
        if not mesh.is_textured:
            tree["materials"] = [{"name": "paint", "pbrMetallicRoughness": _dull()}]
            tree["meshes"][0]["primitives"][0]["material"] = 0

    return export_glb(scene, include_normals=True, unitize_normals=True, tree_postprocessor=complete)


def as_trimesh(mesh: Mesh, axes: Any = lambda vectors: vectors) -> trimesh.Trimesh:
    """The mesh for trimesh's exporters, its vectors (n, 3) turned by `axes`; vertex colours are linear."""
    surface = trimesh.Trimesh(
        axes(mesh.vertices), mesh.faces, vertex_normals=axes(mesh.normals), process=False, validate=False
    )
    if mesh.is_textured:
        assert mesh.texture is not None
        surface.visual = TextureVisuals(uv=mesh.uv, material=_material(mesh, Image.fromarray(mesh.texture)))
        if mesh.normal_map is not None:
            tangents = vertex_tangents(mesh)
            surface.vertex_attributes[_TANGENT] = np.concatenate([axes(tangents[:, :3]), tangents[:, 3:]], axis=1)
    elif mesh.colors is not None:
        linear = srgb_to_linear(mesh.colors)
        colors = np.concatenate([linear, np.ones_like(linear[:, :1])], axis=1)
        surface.visual = ColorVisuals(surface, vertex_colors=(colors * 255).round().astype(np.uint8))
    return surface


def _material(mesh: Mesh, base: Image.Image) -> PBRMaterial:
    if mesh.metallic_roughness is None or mesh.normal_map is None:
        return PBRMaterial(name="paint", baseColorTexture=base, metallicFactor=0.0, roughnessFactor=ROUGHNESS)
    finish, normals = (Image.fromarray(each) for each in (mesh.metallic_roughness, mesh.normal_map))
    return PBRMaterial(
        name="paint", baseColorTexture=base, metallicRoughnessTexture=finish, normalTexture=normals,
        metallicFactor=1.0, roughnessFactor=1.0,
    )  # fmt: skip


def read_glb(content: bytes) -> Mesh:
    """A mesh as a file of ours delivers it, back in world coordinates."""
    (surface,) = trimesh.load_scene(BytesIO(content), file_type="glb", process=False).geometry.values()
    texture, uv, colors, finish, bumps = None, None, None, None, None
    if isinstance(surface.visual, TextureVisuals) and surface.visual.uv is not None:
        material: Any = surface.visual.material
        texture = np.asarray(material.baseColorTexture.convert("RGB"))
        uv = np.asarray(surface.visual.uv, np.float32)
        if material.normalTexture is not None:
            finish, bumps = np.asarray(material.metallicRoughnessTexture), np.asarray(material.normalTexture)
    else:
        # Where there is a material, trimesh keeps colours of vertices beside it.
        found = surface.visual.vertex_attributes.get("color")
        colors = linear_to_srgb(np.asarray(found)[:, :3] / 255).astype(np.float32)
    vertices, normals = (
        from_gltf_axes(np.asarray(each, np.float32)) for each in (surface.vertices, surface.vertex_normals)
    )
    return Mesh(vertices, np.asarray(surface.faces, np.int64), normals, colors, uv, texture, finish, bumps)


def to_gltf_axes(vectors: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    """Turn world vectors (n, 3), z up with the front towards +x, into glTF's: y up with the front towards +z."""
    return vectors[:, [1, 2, 0]]


def from_gltf_axes(vectors: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    """Inverse of `to_gltf_axes`."""
    return vectors[:, [2, 0, 1]]


def srgb_to_linear(colors: ndarray) -> ndarray:
    """Light of colours in [0, 1] as images keep them in sRGB (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: ndarray) -> ndarray:
    """Inverse of `srgb_to_linear`."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def _dull() -> dict[str, float]:
    return {"metallicFactor": 0.0, "roughnessFactor": ROUGHNESS}


def _name_targets(tree: dict[str, Any]) -> None:
    """Say of each view of the buffer whether it holds vertices or indices, which loaders ask for."""
    views, accessors = tree["bufferViews"], tree["accessors"]
    for primitive in (each for mesh in tree["meshes"] for each in mesh["primitives"]):
        views[accessors[primitive["indices"]]["bufferView"]]["target"] = _INDICES
        for index in primitive["attributes"].values():
            views[accessors[index]["bufferView"]]["target"] = _VERTEX_DATA
