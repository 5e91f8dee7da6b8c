"""The files that an asset's mesh is written as: y up, the front towards +z, in metres; and the names of all formats."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import SimpleMaterial

from dreambooth3d.errors import ConfigError
from dreambooth3d.export.gltf import GENERATOR, ROUGHNESS, Credits, srgb_to_linear, to_glb, to_gltf_axes
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.splats import SPLAT_FORMATS

STEM = "asset"


@dataclass(frozen=True)
class MeshFormat:
    """One kind of file.

    Attributes:
        meaning: what it is, and who reads it.
        write: takes a mesh, a folder and credits, and writes one or more files whose names begin with `STEM`.
        module: that it needs beyond the product's own requirements, or nothing.
        extra: the product's extra that brings it.
    """

    meaning: str
    write: Callable[[Mesh, Path, Credits], None]
    module: str = ""
    extra: str = ""


def write_glb(mesh: Mesh, folder: Path, credits: Credits) -> None:
    """One file with everything in it."""
    (folder / f"{STEM}.glb").write_bytes(to_glb(mesh, credits))


def write_obj(mesh: Mesh, folder: Path, credits: Credits) -> None:
    """Geometry, material and texture as three files; without a texture sRGB colours behind each vertex."""
    surface = _upright(mesh)
    if mesh.is_textured:
        assert mesh.texture is not None
        white, black = np.array([255] * 4, np.uint8), np.array([0, 0, 0, 255], np.uint8)
        material = SimpleMaterial(
            Image.fromarray(mesh.texture), diffuse=white, ambient=black, specular=black, name=STEM
        )
        surface.visual = TextureVisuals(uv=mesh.uv, material=material)
    else:
        surface.visual = ColorVisuals(surface, vertex_colors=_bytes(mesh))
    # One line: what stands behind a line's end would be no comment.
    header = " ".join("; ".join(_credit_lines(credits)).split())
    text, extra = export_obj(
        surface, include_normals=True, return_texture=True, write_texture=False, header=header,
        mtl_name=f"{STEM}.mtl", digits=6,
    )  # fmt: skip
    (folder / f"{STEM}.obj").write_text(text)
    for name, content in extra.items():
        (folder / name).write_bytes(content + _finish(mesh, folder) if name.endswith(".mtl") else content)


def _finish(mesh: Mesh, folder: Path) -> bytes:
    """Write the pictures of a physically based material; returns the lines about them, as MTL's extension has them."""
    if mesh.metallic_roughness is None or mesh.normal_map is None:
        return b""
    pictures = {
        "map_Pr": ("roughness", mesh.metallic_roughness[..., 1]),
        "map_Pm": ("metallic", mesh.metallic_roughness[..., 2]),
        "norm": ("normal", mesh.normal_map),
    }
    for name, picture in pictures.values():
        Image.fromarray(picture).save(folder / f"{STEM}_{name}.png")
    return "".join(f"\n{key} {STEM}_{name}.png" for key, (name, _) in pictures.items()).encode() + b"\n"


def write_ply(mesh: Mesh, folder: Path, credits: Credits) -> None:
    """A binary file with sRGB colours at vertices, which those who read scans expect; a texture is looked up there."""
    surface = _upright(mesh)
    surface.visual = ColorVisuals(surface, vertex_colors=_bytes(mesh))
    first, kind, rest = export_ply(surface, vertex_normal=True).split(b"\n", 2)
    comments = b"".join(b"comment %s\n" % " ".join(line.split()).encode() for line in _credit_lines(credits))
    (folder / f"{STEM}.ply").write_bytes(b"\n".join([first, kind, comments + rest]))


def write_usdz(mesh: Mesh, folder: Path, credits: Credits) -> None:
    """One file for the viewers of iPhones and iPads, by Pixar's own tools."""
    from pxr import Sdf, UsdUtils  # pyright: ignore[reportMissingImports]  # an extra

    with tempfile.TemporaryDirectory() as work:
        _write_usd(mesh, Path(work), credits)
        made = Path(work) / f"{STEM}.usdz"
        if not UsdUtils.CreateNewARKitUsdzPackage(Sdf.AssetPath(str(Path(work) / f"{STEM}.usdc")), str(made)):
            raise ConfigError("usdz: usd-core could not pack the mesh. Export it as glb, and convert that.")
        (folder / made.name).write_bytes(made.read_bytes())


MESH_FORMATS = {
    "glb": MeshFormat("binary glTF 2.0: browsers, game engines, Blender", write_glb),
    "obj": MeshFormat("Wavefront OBJ with MTL and PNG: nearly everything", write_obj),
    "ply": MeshFormat("Stanford PLY with vertex colours: MeshLab, CloudCompare", write_ply),
    "usdz": MeshFormat("USDZ: AR Quick Look on iPhones and iPads", write_usdz, module="pxr", extra="usd"),
}
"""By the name that `--format` takes; `SPLAT_FORMATS` are the others."""


def check_formats(names: list[str]) -> None:
    """See whether files can be written.

    Raises:
        ConfigError: there is no such format, or what it needs is not installed.
    """
    known = ", ".join([*MESH_FORMATS, *SPLAT_FORMATS])
    if not names:
        raise ConfigError(f"export: --format names nothing. Choose of {known}.")
    for name in names:
        if name not in MESH_FORMATS and name not in SPLAT_FORMATS:
            raise ConfigError(f"export: --format {name} is unknown. Choose of {known}.")
        wanted = MESH_FORMATS.get(name)
        if wanted is not None and wanted.module and importlib.util.find_spec(wanted.module) is None:
            raise ConfigError(f"export: {name} needs a package more. Run `pip install 'dreambooth3d[{wanted.extra}]'`.")


def in_metres(mesh: Mesh, metres: float | None) -> Mesh:
    """A mesh whose longest side has that length; as it is for None."""
    return mesh if metres is None else mesh.scaled(metres / mesh.longest_side)


def _upright(mesh: Mesh) -> trimesh.Trimesh:
    vertices, normals = to_gltf_axes(mesh.vertices), to_gltf_axes(mesh.normals)
    return trimesh.Trimesh(vertices, mesh.faces, vertex_normals=normals, process=False)


def _bytes(mesh: Mesh) -> np.ndarray:
    """(v, 4) sRGB colours of the vertices."""
    colors = np.zeros((len(mesh.vertices), 3), np.float32)
    triangle = np.repeat(np.arange(len(mesh.faces)), 3)
    colors[mesh.faces.ravel()] = mesh.colors_at(triangle, np.tile(np.eye(3), (len(mesh.faces), 1)))
    opaque = np.ones((len(colors), 1), np.float32)
    return (np.concatenate([colors, opaque], axis=1) * 255).round().astype(np.uint8)


def _credit_lines(credits: Credits) -> list[str]:
    owner = [f"copyright: {credits.copyright}"] if credits.copyright else []
    return [f"Made by {GENERATOR}", *owner, *(f"{key}: {value}" for key, value in credits.facts().items())]


def _write_usd(mesh: Mesh, folder: Path, credits: Credits) -> None:
    """`asset.usdc`, and its texture beside it."""
    from pxr import Gf, Usd, UsdGeom, Vt  # pyright: ignore[reportMissingImports]  # an extra

    stage = Usd.Stage.CreateNew(str(folder / f"{STEM}.usdc"))
    stage.SetMetadata("comment", "; ".join(_credit_lines(credits)))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, f"/{STEM}")
    stage.SetDefaultPrim(root.GetPrim())
    shape = UsdGeom.Mesh.Define(stage, f"/{STEM}/surface")
    vertices, normals = to_gltf_axes(mesh.vertices), to_gltf_axes(mesh.normals)
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(vertices)))
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(normals)))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    shape.CreateFaceVertexCountsAttr(Vt.IntArray(len(mesh.faces), 3))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.ravel().astype(np.int32)))
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreateExtentAttr([Gf.Vec3f(*map(float, corner)) for corner in (vertices.min(0), vertices.max(0))])
    _paint_usd(mesh, stage, shape, folder)
    stage.GetRootLayer().Save()


def _paint_usd(mesh: Mesh, stage: Any, shape: Any, folder: Path) -> None:
    """The material of a USD mesh."""
    from pxr import Sdf, UsdGeom, UsdShade, Vt  # pyright: ignore[reportMissingImports]  # an extra

    values = UsdGeom.PrimvarsAPI(shape)
    material = UsdShade.Material.Define(stage, f"/{STEM}/paint")
    shader = UsdShade.Shader.Define(stage, f"/{STEM}/paint/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(ROUGHNESS)
    shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
    base = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
    reader = UsdShade.Shader.Define(stage, f"/{STEM}/paint/reader")
    if mesh.is_textured:
        assert mesh.texture is not None and mesh.uv is not None
        Image.fromarray(mesh.texture).save(folder / f"{STEM}.png")
        kind = Sdf.ValueTypeNames.TexCoord2fArray
        values.CreatePrimvar("st", kind, UsdGeom.Tokens.vertex).Set(Vt.Vec2fArray.FromNumpy(mesh.uv))
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
        place = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
        image = UsdShade.Shader.Define(stage, f"/{STEM}/paint/texture")
        image.CreateIdAttr("UsdUVTexture")
        image.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"{STEM}.png")
        image.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
        for side in ("wrapS", "wrapT"):
            image.CreateInput(side, Sdf.ValueTypeNames.Token).Set("clamp")
        image.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(place)
        base.ConnectToSource(image.CreateOutput("rgb", Sdf.ValueTypeNames.Float3))
    else:
        colors = _linear_colors(mesh)
        shown = values.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
        shown.Set(Vt.Vec3fArray.FromNumpy(colors))
        reader.CreateIdAttr("UsdPrimvarReader_float3")
        reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("displayColor")
        base.ConnectToSource(reader.CreateOutput("result", Sdf.ValueTypeNames.Float3))
    material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)


def _linear_colors(mesh: Mesh) -> np.ndarray:
    return np.ascontiguousarray(srgb_to_linear(_bytes(mesh)[:, :3] / 255).astype(np.float32))
