"""The mesh with a physically based material: what it shows, what it learns, and what of it is exported."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreambooth3d.cameras import orbit_cameras, spread_cameras
from dreambooth3d.config.mesh import LightConfig, MeshConfig, TextureConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.export.build import MeshBuilder
from dreambooth3d.export.formats import MESH_FORMATS
from dreambooth3d.export.gltf import Credits, read_glb
from dreambooth3d.export.material import vertex_tangents
from dreambooth3d.export.mesh import Mesh, look_up
from dreambooth3d.export.source import asset_source
from dreambooth3d.export.texture import texel_places
from dreambooth3d.representation.interface import turn_about_z
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from tests.export.test_formats import VALIDATE, run_node, tree_of, validator_root
from tests.representation.test_conformance import field
from tests.surface.scenes import AROUND, painted

SIZE = 32
PBR = MeshConfig(resolution=16, texture=TextureConfig(encoding="dense", volume_resolution=16), material="pbr")
ALBEDO = PBR.model_copy(update={"material": "albedo"})
RATES = {"texture": 0.03, "material": 0.01}


def made(config: MeshConfig = PBR) -> SurfaceMesh:
    return SurfaceMesh.fresh(config, RenderConfig(), "cpu")


def finished(seed: int = 0) -> SurfaceMesh:
    """A ball of many colours, partly metal, partly smooth, with relief."""
    ball, generator = painted(made(), seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in ball.paint.parameters():
            values.copy_(0.2 * torch.randn(values.shape, generator=generator))
    return ball


def fitted(config: MeshConfig, views: Tensor) -> SurfaceMesh:
    """A ball whose appearance is fitted to views of `spread_cameras`; its shape stays."""
    ball, cameras = made(config), spread_cameras(len(views))
    groups = [
        {"params": list(group.parameters), "lr": RATES[group.name]}
        for group in ball.parameter_groups()
        if group.name in RATES
    ]
    optimizer, generator = torch.optim.Adam(groups), torch.Generator().manual_seed(0)
    for _ in range(120):
        some = torch.randperm(len(cameras), generator=generator)[:4]
        shown = ball.render_views(cameras[some], SIZE, background=torch.zeros(4, 3))
        loss = (shown.color - views[some]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return ball


def test_base_colours_come_out_of_the_light() -> None:
    """Fitted to lit views, base colours are far closer to the true ones than colours without a material."""
    truth = painted(made(), 3)
    cameras = spread_cameras(16)
    views = truth.render(cameras, SIZE, background=torch.zeros(3))
    wanted = truth.unlit().render(cameras, SIZE, background=torch.zeros(3))
    assert (views.color - wanted.color).abs()[views.opacity[:, None].expand_as(views.color) > 0.99].mean() > 0.05

    def error(ball: SurfaceMesh) -> float:
        found = ball.unlit().render(cameras, SIZE, background=torch.zeros(3))
        return (found.color - wanted.color).abs().mean(dim=1)[wanted.opacity > 0.99].mean().item()

    assert error(fitted(PBR, views.color)) < 0.5 * error(fitted(ALBEDO, views.color))


def test_a_mesh_made_of_a_field_looks_as_it_does_in_its_light() -> None:
    """As far as that light reaches everywhere; the field's colours as base colours would look far darker."""
    source = field()
    ball = SurfaceMesh.converted(source, MeshConfig(resolution=24, material="pbr"), RenderConfig(), "cpu")
    naive = copy.deepcopy(ball)
    for name in ("encoding", "head"):
        getattr(naive, name).load_state_dict(getattr(source, name).state_dict())
    expected = source.render(AROUND, SIZE)

    def error(mesh: SurfaceMesh) -> float:
        shown = mesh.render(AROUND, SIZE)
        solid = (expected.opacity > 0.99) & (shown.opacity > 0.99)
        return (shown.color - expected.color).abs().mean(dim=1)[solid].mean().item()

    assert error(ball) < 0.06 and error(ball) < 0.6 * error(naive)


def test_unlit_renders_are_those_of_the_base_colours_alone() -> None:
    ball = finished()
    plain = SurfaceMesh(ball.config.model_copy(update={"material": "albedo"}))
    plain.load_state_dict(ball.state_dict(), strict=False)
    base, lit = ball.unlit().render(AROUND, SIZE), ball.render(AROUND, SIZE)
    assert torch.equal(base.color, plain.render(AROUND, SIZE).color)
    assert (base.color - lit.color).abs().max() > 0.1, "and the light was not switched off for the ball itself"
    assert plain.unlit() is plain


def test_light_goes_with_the_mesh() -> None:
    """Turned, it looks from a camera that is turned alike as it did; the lamp lights one side only."""
    ball = made()
    front, side = orbit_cameras(torch.tensor([0.0])), orbit_cameras(torch.tensor([180.0]))
    before = ball.render(front, SIZE).color
    assert (before - ball.render(side, SIZE).color).abs().max() > 0.05
    ball.turn_by(70.0)
    after = ball.render(orbit_cameras(torch.tensor([70.0])), SIZE).color
    assert (after - before).abs().mean() < 2e-3


def test_an_environment_is_kept_with_the_mesh(tmp_path: Path) -> None:
    """Its file is not needed again."""
    import imageio.v3 as imageio

    picture = np.full((16, 32, 3), 0.2, np.float32)
    picture[:4] = [4.0, 2.0, 1.0]
    imageio.imwrite(tmp_path / "sky.tiff", picture)
    config = PBR.model_copy(update={"light": LightConfig(environment=str(tmp_path / "sky.tiff"))})
    ball = made(config)
    (tmp_path / "sky.tiff").unlink()
    again = SurfaceMesh.from_state(ball.state(), ball.settings())
    assert torch.equal(again.render(AROUND, SIZE).color, ball.render(AROUND, SIZE).color)
    assert (ball.render(AROUND, SIZE).color - made().render(AROUND, SIZE).color).abs().max() > 0.05
    with pytest.raises(ConfigError, match="there is no such file"):
        made(config)


def test_relief_bends_what_is_lit_and_not_the_shape() -> None:
    ball = finished()
    flat = copy.deepcopy(ball)
    flat.config = ball.config.model_copy(update={"relief": 0.0})
    rough, smooth = (each.render(AROUND, SIZE, with_normals=True) for each in (ball, flat))
    assert torch.equal(rough.normals, smooth.normals) and torch.equal(rough.opacity, smooth.opacity)
    assert (rough.color - smooth.color).abs().max() > 0.05


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[SurfaceMesh, Mesh, Path]:
    """A turned ball, the mesh of it, and the files of that."""
    ball, folder = finished(), tmp_path_factory.mktemp("delivered")
    ball.move(turn_about_z(40.0))
    source, cameras = asset_source(ball, 8), spread_cameras(8)
    config = ExportConfig(texture_size=256, max_triangles=3000)
    mesh = MeshBuilder(source, config, cameras, source.render(cameras, SIZE)).build()
    for name in ("glb", "obj"):
        MESH_FORMATS[name].write(mesh, folder, Credits("ball"))
    return ball, mesh, folder


def test_textures_hold_the_material(delivered: tuple[SurfaceMesh, Mesh, Path]) -> None:
    """At texels' places: base colour, roughness in green, metalness in blue; normals by the file's own tangents."""
    ball, _, folder = delivered
    mesh = read_glb((folder / "asset.glb").read_bytes())
    places = texel_places(mesh, 256)
    some = torch.randperm(len(places.triangle), generator=torch.Generator().manual_seed(0))[:2000].numpy()
    corners, weights = mesh.faces[places.triangle[some]], places.weights[some]

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nkc->nc", weights, values[corners])

    normals = at(mesh.normals)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    wanted = ball.surface_material(
        torch.tensor(at(mesh.vertices), dtype=torch.float32), torch.tensor(normals, dtype=torch.float32)
    )
    finish = look_up(mesh.metallic_roughness, at(mesh.uv))
    assert look_up(mesh.texture, at(mesh.uv)) == pytest.approx(wanted.base.detach().numpy(), abs=0.02)
    assert finish[:, 1] == pytest.approx(wanted.roughness.detach().numpy(), abs=0.02)
    assert finish[:, 2] == pytest.approx(wanted.metallic.detach().numpy(), abs=0.02)
    tangents = at(vertex_tangents(mesh))
    across = tangents[:, :3] - (tangents[:, :3] * normals).sum(1, keepdims=True) * normals
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    up = np.cross(normals, across) * np.sign(tangents[:, 3:])
    local = look_up(mesh.normal_map, at(mesh.uv)) * 2 - 1
    bent = local[:, :1] * across + local[:, 1:2] * up + local[:, 2:] * normals
    bent /= np.linalg.norm(bent, axis=1, keepdims=True)
    cosine = (bent * wanted.normals.detach().numpy()).sum(1)
    assert np.median(cosine) > 0.9995 and cosine.min() > 0.97
    assert np.median((normals * wanted.normals.detach().numpy()).sum(1)) < 0.999, "there was something to be bent"


def test_tangents_follow_the_texture(delivered: tuple[SurfaceMesh, Mesh, Path]) -> None:
    """Along a triangle's u on the surface, whose upward direction is where v grows."""
    _, mesh, _ = delivered
    tangents = vertex_tangents(mesh)
    corners, places = mesh.vertices[mesh.faces], mesh.uv[mesh.faces]
    edges, steps = corners[:, 1:] - corners[:, :1], places[:, 1:] - places[:, :1]
    frames = np.linalg.solve(steps.astype(np.float64), edges.astype(np.float64))  # (f, 2, 3) d place / d u and d v
    first = tangents[mesh.faces[:, 0]]
    up = np.cross(mesh.normals[mesh.faces[:, 0]], first[:, :3]) * first[:, 3:]
    for axis, found in ((0, first[:, :3]), (1, up)):
        along = frames[:, axis] / np.linalg.norm(frames[:, axis], axis=1, keepdims=True)
        assert np.median((along * found).sum(1)) > 0.98
    assert np.abs((tangents[:, :3] * mesh.normals).sum(1)).max() < 1e-5


def test_files_name_all_of_the_material(delivered: tuple[SurfaceMesh, Mesh, Path]) -> None:
    _, mesh, folder = delivered
    tree = tree_of((folder / "asset.glb").read_bytes())
    (material,) = tree["materials"]
    paint = material["pbrMetallicRoughness"]
    assert paint["metallicFactor"] == paint["roughnessFactor"] == 1
    assert len({paint["baseColorTexture"]["index"], paint["metallicRoughnessTexture"]["index"]}) == 2
    assert "normalTexture" in material and "TANGENT" in tree["meshes"][0]["primitives"][0]["attributes"]
    lines = dict(line.split(maxsplit=1) for line in (folder / "asset.mtl").read_text().splitlines() if "map" in line)
    assert {"map_Kd", "map_Pr", "map_Pm"} <= set(lines)
    names = [*lines.values(), "asset_normal.png"]
    assert (
        all((folder / name).is_file() for name in names)
        and "norm asset_normal.png" in (folder / "asset.mtl").read_text()
    )
    assert len(trimesh.load(folder / "asset.obj", process=False).faces) == len(mesh.faces)


def test_khronos_validator_finds_nothing(delivered: tuple[SurfaceMesh, Mesh, Path]) -> None:
    root = validator_root()
    if root is None:
        pytest.skip("Khronos' validator is not installed: `npm install --global gltf-validator`")
    issues = json.loads(run_node(root, VALIDATE, delivered[2] / "asset.glb").stdout)
    assert [issues[key] for key in ("numErrors", "numWarnings", "numInfos", "numHints")] == [0, 0, 0, 0], issues
