"""Files of a mesh, read back by other programs."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d.errors import ConfigError
from dreambooth3d.export import formats
from dreambooth3d.export.formats import MESH_FORMATS, check_formats, in_metres
from dreambooth3d.export.gltf import Credits, linear_to_srgb, read_glb, srgb_to_linear, to_glb, to_gltf_axes
from dreambooth3d.export.surface import decimated, sample_density, surface_at
from dreambooth3d.export.texture import textured, with_vertex_colors
from tests.export.fields import as_source, ball, no_pictures

FACTS = {"subject": "corgi", "prompt": "a\n*/ photo", "run": "r1", "commit": "unknown", "more": ""}
CREDITS = Credits("corgi", "Ada", FACTS)
VALIDATE = """
const validator = require("gltf-validator"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(scope="module")
def meshes():
    shape = decimated(surface_at(sample_density(ball, 48), 10.0), 1200)
    source = as_source(ball)
    return {
        "texture": textured(shape, source, 128, 0.05, *no_pictures()),
        "vertices": with_vertex_colors(shape, source, 0.05, *no_pictures()),
    }


def tree_of(glb):
    length = struct.unpack_from("<I", glb, 12)[0]
    return json.loads(glb[20 : 20 + length])


def load_glb(glb):
    (surface,) = trimesh.load_scene(io.BytesIO(glb), file_type="glb").geometry.values()
    return surface


def colors_of(surface):
    """The colours of vertices as another reader has them; those of its texture, where it has one."""
    if surface.visual.kind == "vertex":
        return np.asarray(surface.visual.vertex_colors)[:, :3]
    beside = surface.visual.vertex_attributes
    return np.asarray(beside["color"] if "color" in beside else surface.visual.to_color().vertex_colors)[:, :3]


def assert_front_is_red_and_top_green(surface, tolerance=3):
    vertices, colors = np.asarray(surface.vertices), colors_of(surface)
    assert colors[vertices[:, 2].argmax()] == pytest.approx([255, 0, 0], abs=tolerance)
    assert colors[vertices[:, 1].argmax()] == pytest.approx([0, 255, 0], abs=tolerance)


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_glb_is_upright_and_says_what_it_is(meshes, colors):
    glb = to_glb(meshes[colors], CREDITS)
    tree = tree_of(glb)
    assert tree["asset"] == {
        "version": "2.0", "generator": "DreamBooth3D", "copyright": "Ada",
        "extras": {"subject": "corgi", "prompt": "a\n*/ photo", "run": "r1"},
    }  # fmt: skip
    (material,) = tree["materials"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == pytest.approx(0.9)
    assert ("baseColorTexture" in material["pbrMetallicRoughness"]) == (colors == "texture")
    (primitive,) = tree["meshes"][0]["primitives"]
    assert primitive["material"] == 0
    views = [tree["bufferViews"][tree["accessors"][index]["bufferView"]] for index in primitive["attributes"].values()]
    assert {view["target"] for view in views} == {34962}
    assert tree["bufferViews"][tree["accessors"][primitive["indices"]]["bufferView"]]["target"] == 34963
    surface = load_glb(glb)
    assert_front_is_red_and_top_green(surface)
    assert surface.volume == pytest.approx(meshes[colors].facts()["mesh_volume"], rel=1e-3)


def test_glb_comes_back_as_it_was(meshes):
    for mesh in meshes.values():
        again = read_glb(to_glb(mesh))
        assert np.array_equal(again.faces, mesh.faces) and again.vertices == pytest.approx(mesh.vertices, abs=1e-6)
    again = read_glb(to_glb(meshes["texture"]))
    assert np.array_equal(again.texture, meshes["texture"].texture)
    assert again.uv == pytest.approx(meshes["texture"].uv, abs=1e-6)


def test_vertex_colors_of_the_glb_are_linear_light():
    shape = decimated(surface_at(sample_density(ball, 24), 10.0), 400)
    grey = as_source(lambda points: (ball(points)[0], torch.full_like(points, 0.5)))
    glb = to_glb(with_vertex_colors(shape, grey, 0.05, *no_pictures()))
    assert np.unique(colors_of(load_glb(glb))).tolist() == [round(0.21404 * 255)]
    assert srgb_to_linear(np.array([0.0, 0.04, 1.0])) == pytest.approx([0.0, 0.04 / 12.92, 1.0])
    values = np.linspace(0, 1, 33)
    assert linear_to_srgb(srgb_to_linear(values)) == pytest.approx(values, abs=1e-6)


def test_texture_keeps_srgb_values(meshes):
    colors = np.unique(meshes["texture"].texture.reshape(-1, 3), axis=0)
    assert [0, 0, 255] in colors.tolist() and [255, 0, 0] in colors.tolist()


def test_axes_are_turned_not_mirrored():
    turned = to_gltf_axes(np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)
    assert turned[0].tolist() == [0, 0, 1] and turned[2].tolist() == [0, 1, 0]


def validator_root():
    """The folder in which npm has put Khronos' validator, or nothing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    roots = [
        subprocess.run(["npm", "root", *scope], capture_output=True, text=True).stdout.strip() for scope in ([], ["-g"])
    ]
    check = 'require.resolve("gltf-validator")'
    found = (root for root in roots if run_node(root, check).returncode == 0)
    return next(found, None)


def run_node(root, script, *arguments):
    return subprocess.run(
        ["node", "-e", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"NODE_PATH": root, "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_khronos_validator_finds_nothing(meshes, colors, tmp_path):
    root = validator_root()
    if root is None:
        pytest.skip("Khronos' validator is not installed: `npm install --global gltf-validator`")
    MESH_FORMATS["glb"].write(meshes[colors], tmp_path, CREDITS)
    issues = json.loads(run_node(root, VALIDATE, tmp_path / "asset.glb").stdout)
    assert [issues[key] for key in ("numErrors", "numWarnings", "numInfos", "numHints")] == [0, 0, 0, 0], issues


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_obj_names_its_material_and_reads_back(meshes, colors, tmp_path):
    MESH_FORMATS["obj"].write(meshes[colors], tmp_path, CREDITS)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == ({"asset.obj", "asset.mtl", "asset.png"} if colors == "texture" else {"asset.obj"})
    surface = trimesh.load(tmp_path / "asset.obj", process=False)
    assert_front_is_red_and_top_green(surface)
    lines = (tmp_path / "asset.obj").read_text().splitlines()
    assert {line.split()[0] for line in lines if line} <= {"#", "mtllib", "usemtl", "o", "g", "s", "v", "vt", "vn", "f"}
    assert "copyright: Ada" in lines[0]


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_ply_has_colours_at_vertices(meshes, colors, tmp_path):
    MESH_FORMATS["ply"].write(meshes[colors], tmp_path, CREDITS)
    surface = trimesh.load(tmp_path / "asset.ply", process=False)
    assert len(surface.faces) == len(meshes[colors].faces)
    assert_front_is_red_and_top_green(surface)


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_usdz_passes_the_check_of_its_makers(meshes, colors, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'dreambooth3d[usd]'")
    from pxr import Usd, UsdGeom, UsdValidation

    MESH_FORMATS["usdz"].write(in_metres(meshes[colors], 0.1), tmp_path, CREDITS)
    path = tmp_path / "asset.usdz"
    with zipfile.ZipFile(path) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    stage = Usd.Stage.Open(str(path))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    found = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [f"{error.GetName()}: {error.GetMessage()}" for error in found] == []
    points = np.array(UsdGeom.Mesh(stage.GetPrimAtPath("/asset/surface")).GetPointsAttr().Get())
    assert np.ptp(points, axis=0).max() * UsdGeom.GetStageMetersPerUnit(stage) == pytest.approx(0.1, rel=1e-4)
    assert UsdGeom.GetStageUpAxis(stage) == "Y"


def test_metres_are_the_longest_side(meshes):
    loaded = load_glb(to_glb(in_metres(meshes["texture"], 0.1)))
    assert loaded.extents.max() == pytest.approx(0.1, rel=1e-4)
    assert in_metres(meshes["texture"], None) is meshes["texture"]


def test_formats_that_cannot_be_written_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="--format stl is unknown. Choose of glb, obj, ply, usdz"):
        check_formats(["glb", "stl"])
    with pytest.raises(ConfigError, match="names nothing"):
        check_formats([])
    found = importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "pxr" else found(name))
    with pytest.raises(ConfigError, match=r"usdz needs a package more. Run `pip install 'dreambooth3d\[usd\]'`"):
        check_formats(["usdz"])
    check_formats(["glb", "obj", "ply"])
