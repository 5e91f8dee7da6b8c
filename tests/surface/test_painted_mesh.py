"""A given mesh that is painted: its triangles stay, its colours are learned, and leave in its own UV map."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from pydantic import ValidationError
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Cameras, orbit_cameras, turntable_cameras
from dreambooth3d.config.distillation import InitNerfConfig, RefineNerfConfig, RegularizerConfig
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.config.painted import PaintedConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.export.build import MeshBuilder
from dreambooth3d.export.casting import MeshCaster
from dreambooth3d.export.gltf import to_glb
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.source import asset_source
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.kinds import build_asset, load_representation
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.surface.painted_mesh import PaintedMesh

RED, GREEN, BLUE = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.8, 0.2]), torch.tensor([0.1, 0.2, 0.9])
TEXTURE = TextureConfig(encoding="dense", volume_resolution=24)
SIZE = 32
EXPORT = ExportConfig(mesh_resolution=24, texture_size=256, max_triangles=100, frame_size=32, frame_rays=32)
AROUND = replace(orbit_cameras(torch.tensor([0.0, 120.0, 240.0])), elevation_deg=torch.tensor([10.0, 30.0, -20.0]))


def unfolded_cube() -> trimesh.Trimesh:
    """A cube whose six sides lie apart in a UV map, with 24 vertices at its eight corners."""
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    vertices = box.vertices[box.faces].reshape(-1, 3)
    cell, uv = np.array([1 / 3, 1 / 2]), []
    for side in range(6):
        corner = np.array([side % 3, side // 3]) * cell
        pairs = [index for index, normal in enumerate(box.face_normals) if _side(normal) == side]
        for face in pairs:
            flat = np.delete(box.vertices[box.faces[face]], side % 3, axis=1) + 0.5
            uv.append((face, corner + cell * (0.1 + 0.8 * flat)))
    uv = np.concatenate([each for _, each in sorted(uv, key=lambda pair: pair[0])])
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return trimesh.Trimesh(vertices, faces, process=False, visual=trimesh.visual.TextureVisuals(uv=uv))


def _side(normal: np.ndarray) -> int:
    axis = int(np.abs(normal).argmax())
    return axis + 3 * int(normal[axis] < 0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "cube.obj"
    unfolded_cube().export(path)
    assert "vt " in path.read_text()
    return path


def true_colors(points: Tensor) -> Tensor:
    """Red in front, green on top, else blue."""
    color = torch.where(points[:, :1] > 0.4, RED, BLUE)
    return torch.where(points[:, 2:] > 0.4, GREEN, color)


class CubeGuidance(Guidance):
    """Pulls renders towards those of a cube with true colours, cast by embree."""

    def __init__(self) -> None:
        box = trimesh.creation.box((2 * 0.8 / np.sqrt(3),) * 3).subdivide_loop(0)
        corners = box.vertices[box.faces].reshape(-1, 3)
        faces = np.arange(len(corners)).reshape(-1, 3)
        normals = np.repeat(box.face_normals, 3, axis=0).astype(np.float32)
        colors = np.where(normals[:, :1] > 0.9, RED.numpy(), BLUE.numpy())
        colors = np.where(normals[:, 2:] > 0.9, GREEN.numpy(), colors)
        self.caster = MeshCaster(Mesh(corners.astype(np.float32), faces, normals, colors=colors.astype(np.float32)))

    @property
    def image_size(self) -> int:
        """Of the true images."""
        return SIZE

    def true(self, cameras: Cameras, size: int = SIZE) -> Tensor:
        """(n, 3, size, size) on white."""
        pictures = self.caster.render(cameras, size, 2)
        return pictures.on(1.0)

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        return GuidanceLoss(10 * (images - self.true(cameras)).square().mean())


@pytest.fixture(scope="module")
def painted(file: Path, tmp_path_factory: pytest.TempPathFactory) -> RadianceField:
    config = InitNerfConfig(
        representation="painted", painted=PaintedConfig(file=str(file), texture=TEXTURE, background="white"),
        steps=60, views_per_step=2, learning_rate=0.03, render=RenderConfig(size=SIZE), check_every=60,
        regularizers=RegularizerConfig(sparsity=0, opacity=0), random_background_probability=0,
    )  # fmt: skip
    runtime = Runtime(StepLog("init_nerf"), tmp_path_factory.mktemp("paint"), progress=False)
    return distil(DistillInputs(CubeGuidance()), config, 0, runtime)


def placed() -> np.ndarray:
    """The file's vertices, in the ball of radius 0.8."""
    return unfolded_cube().vertices * (0.8 / np.sqrt(0.75))


def test_its_shape_is_the_files_and_its_colours_are_learned(painted: RadianceField) -> None:
    asset = load_representation(painted)
    triangles = asset.triangles()
    np.testing.assert_allclose(triangles.vertices.numpy(), placed(), atol=1e-6)
    assert torch.equal(triangles.faces, torch.arange(36).view(12, 3))
    shown, true = asset.render(AROUND, SIZE).color, CubeGuidance().true(AROUND)
    assert -10 * (shown - true).square().mean().log10() > 20
    assert {group.name for group in asset.parameter_groups()} == {"texture"}


def test_it_is_exported_as_it_was_given_with_a_texture_over_its_own_uv_map(
    painted: RadianceField, tmp_path: Path
) -> None:
    """Read again by trimesh: vertices, triangles and UV coordinates of the file, and true colours at points of it."""
    source = asset_source(load_representation(painted), 8)
    cameras = turntable_cameras()[::6]
    mesh = MeshBuilder(source, EXPORT, cameras, source.render(cameras, 32)).build()
    (tmp_path / "cube.glb").write_bytes(to_glb(mesh))
    read = trimesh.load_mesh(tmp_path / "cube.glb", process=False)
    given = unfolded_cube()
    np.testing.assert_allclose(read.vertices[:, [2, 0, 1]], placed(), atol=1e-5)
    np.testing.assert_array_equal(read.faces, given.faces)
    np.testing.assert_allclose(read.visual.uv, given.visual.uv, atol=1e-5)
    points, faces = trimesh.sample.sample_surface(given, 400, seed=1)
    share = trimesh.triangles.points_to_barycentric(given.triangles[faces], points)
    uv = np.einsum("nk,nkc->nc", share, given.visual.uv[given.faces[faces]])
    image = np.asarray(read.visual.material.baseColorTexture.convert("RGB")) / 255
    height, width = image.shape[:2]
    found = image[((1 - uv[:, 1]) * height).astype(int), (uv[:, 0] * width).astype(int)]
    normals = torch.tensor(given.face_normals[faces])
    wanted = torch.where(normals[:, :1] > 0.9, RED, torch.where(normals[:, 2:] > 0.9, GREEN, BLUE)).numpy()
    middle = (np.abs(points) < 0.4).sum(axis=1) == 2
    assert middle.sum() > 150
    assert np.abs(found - wanted)[middle].mean() < 0.08


def spoilt(which: str) -> trimesh.Trimesh:
    mesh = unfolded_cube()
    uv = mesh.visual.uv + 0.5 if which == "leaves the image" else np.tile(mesh.visual.uv[:6], (6, 1))
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv)
    return mesh


@pytest.mark.parametrize("which", ["leaves the image", "puts several triangles on the same texels", None])
def test_a_uv_map_that_cannot_hold_a_texture_gives_way_to_an_atlas(
    which: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = trimesh.creation.box((1.0, 1.0, 1.0)) if which is None else spoilt(which)
    asset = PaintedMesh(PaintedConfig(file="cube.obj", texture=TEXTURE), mesh)
    source, cameras = asset_source(asset, 8), turntable_cameras()[::9]
    with caplog.at_level(logging.WARNING):
        made = MeshBuilder(source, EXPORT, cameras, source.render(cameras, 16)).build()
    assert made.is_textured and made.uv.min() >= 0 and made.uv.max() <= 1 and len(made.faces) == 12
    assert {tuple(row) for row in made.vertices.round(5)} == {tuple(row) for row in (mesh.vertices).round(5)}
    assert which is None or which in caplog.text


def test_an_open_mesh_has_the_silhouette_that_embree_sees() -> None:
    """A bent sheet, whose border is outline from both sides."""
    sheet = trimesh.Trimesh(
        [[0, -0.5, -0.5], [0, 0.5, -0.5], [0.2, -0.5, 0], [0.2, 0.5, 0], [0, -0.5, 0.6], [0, 0.5, 0.6]],
        [[0, 1, 3], [0, 3, 2], [2, 3, 5], [2, 5, 4]],
        process=False,
    )
    asset = PaintedMesh(PaintedConfig(file="sheet.obj", texture=TEXTURE), sheet)
    cameras = orbit_cameras(torch.tensor([0.0, 40.0, 180.0]))
    shown = asset.render(cameras, 48).opacity
    mesh = Mesh(
        sheet.vertices.astype(np.float32), np.asarray(sheet.faces), np.asarray(sheet.vertex_normals, np.float32)
    )
    true = MeshCaster(mesh).masks(cameras, 48 * 4)
    true = torch.nn.functional.avg_pool2d(true[:, None].float(), 4)[:, 0]
    assert true.mean() > 0.05 and (shown - true).abs().mean() < 0.01
    rim = (true > 0.1) & (true < 0.9)
    assert (shown - true)[rim].abs().mean() < 0.25


def test_settings_that_do_not_fit_are_refused(painted: RadianceField, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="go together"):
        InitNerfConfig(representation="painted")
    with pytest.raises(ValidationError, match="go together"):
        InitNerfConfig(painted=PaintedConfig(file="cube.obj"))
    with pytest.raises(ValidationError, match=r"mesh.file is what a mesh begins from"):
        InitNerfConfig(mesh=MeshConfig(file="cube.obj"))
    with pytest.raises(ValidationError, match="face_front would turn it"):
        InitNerfConfig(representation="painted", painted=PaintedConfig(file="cube.obj"), face_front=True)
    with pytest.raises(ValidationError, match=r"mesh.file .* this stage goes on or fits a truth: set it in init_nerf"):
        RefineNerfConfig(representation="mesh", mesh=MeshConfig(file="cube.obj"))
    runtime = Runtime(StepLog("refine_nerf"), tmp_path, progress=False)
    field = distil(DistillInputs(CubeGuidance()), InitNerfConfig(steps=1, render=RenderConfig(size=8)), 0, runtime)
    with pytest.raises(ValidationError, match="painted begins from a given mesh: set it, and painted.file"):
        RefineNerfConfig(representation="painted")
    with pytest.raises(ConfigError, match="painted is a mesh that is given"):
        PaintedMesh.converted(load_representation(field), None, RenderConfig(size=8), "cpu")


def test_a_later_stage_paints_on_at_its_own_rate(painted: RadianceField) -> None:
    """And asks for no other making of the mesh."""
    slower = RefineNerfConfig(painted=PaintedConfig(texture_rate=0.25))
    asset = build_asset(slower, 0, torch.device("cpu"), painted)
    assert {group.name: group.rate_factor for group in asset.parameter_groups()}["texture"] == 0.25
    assert build_asset(RefineNerfConfig(), 0, torch.device("cpu"), painted).settings() == dict(painted.config)
    other = RefineNerfConfig(painted=PaintedConfig(background="network"))
    with pytest.raises(ConfigError, match="painted.background=network"):
        build_asset(other, 0, torch.device("cpu"), painted)
