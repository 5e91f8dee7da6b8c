"""What every kind of asset has to do, as `dreambooth3d.representation.interface` promises it.

A kind takes part by an asset in `ASSETS`. Its subject has to be lopsided in shape and colour, of some size, inside the
ball of radius 0.9 about the origin and off its middle, so that moves and mirrored axes show.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Cameras, PosedCameras, orbit_cameras, turntable_cameras
from dreambooth3d.config.distillation import DistillConfig, InitNerfConfig, RefineNerfConfig, RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.mesh import LightConfig, MeshConfig, TextureConfig
from dreambooth3d.config.painted import PaintedConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.representation import SETTINGS
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.export.build import MeshBuilder
from dreambooth3d.export.source import asset_source
from dreambooth3d.gaussians.gaussians import Gaussians
from dreambooth3d.kinds import KINDS, build_asset, load_representation, render_asset, settings_of
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.representation.average import RunningAverage
from dreambooth3d.representation.interface import Position, Representation, ViewPixels, turn_about_z
from dreambooth3d.representation.shading import Shading
from dreambooth3d.runtime import Runtime
from dreambooth3d.surface.painted_mesh import PaintedMesh
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from materializers.field import RadianceFieldMaterializer
from tests.nerf.scenes import BallGuidance

SIZE = 32
RENDER = RenderConfig(size=SIZE, samples_per_ray=64)
AROUND = replace(orbit_cameras(torch.tensor([0.0, 100.0, 220.0])), elevation_deg=torch.tensor([10.0, 40.0, -5.0]))
EVERYTHING = RegularizerConfig(sparsity=1.0, opacity=1.0, orientation=1.0, distortion=1.0, smoothness=1.0)


def field() -> Field:
    """An ellipsoid off the middle, red in front and green on top, as a dense volume."""
    made = Field(FieldConfig(encoding="dense", volume_resolution=40, background="learned"), "cpu", 24)
    points = torch.cartesian_prod(*[torch.linspace(-1, 1, 40)] * 3)
    inside = 1 - ((points - torch.tensor([0.15, -0.1, 0.05])) / torch.tensor([0.5, 0.3, 0.4])).norm(dim=-1)
    color = torch.where(points[:, :1] > 0.2, torch.tensor([2.0, -2.0, -2.0]), torch.tensor([-2.0, -1.0, 2.0]))
    color = torch.where(points[:, 2:] > 0.2, torch.tensor([-2.0, 2.0, -2.0]), color)
    logits = torch.cat([(40 * inside).clamp(-10, 10)[:, None], color], dim=-1)
    volume = logits.view(40, 40, 40, 4).permute(3, 2, 1, 0)[None]
    with torch.no_grad():
        for level in made.encoding.levels:
            level.zero_()
        made.encoding.levels[-1].copy_(volume / 10.0)
    made.refresh(torch.Generator().manual_seed(0))
    return made


def gaussians() -> Gaussians:
    """The same ellipsoid: thin Gaussians on its surface."""
    height = torch.arange(1, 1800, 2) / 900 - 1
    turns = torch.arange(900) * 2.399963
    ring = (1 - height.square()).sqrt()
    ball = torch.stack([ring * turns.cos(), ring * turns.sin(), height], dim=-1)
    points = ball * torch.tensor([0.5, 0.3, 0.4]) + torch.tensor([0.15, -0.1, 0.05])
    normals = torch.nn.functional.normalize(ball / torch.tensor([0.5, 0.3, 0.4]), dim=-1)
    color = torch.where(points[:, :1] > 0.2, torch.tensor([0.88, 0.12, 0.12]), torch.tensor([0.12, 0.27, 0.88]))
    color = torch.where(points[:, 2:] > 0.2, torch.tensor([0.12, 0.88, 0.12]), color)
    return Gaussians.from_points(points, color, normals=normals)


@cache
def converted() -> SurfaceMesh:
    return SurfaceMesh.converted(field(), MeshConfig(resolution=24), RENDER, "cpu")


def mesh() -> SurfaceMesh:
    """The same ellipsoid as a mesh, with the field's colours."""
    return copy.deepcopy(converted())


def painted() -> PaintedMesh:
    """The same ellipsoid as given triangles, with the field's colours."""
    shape = trimesh.creation.icosphere(3)
    shape.apply_scale((0.5, 0.3, 0.4)).apply_translation((0.15, -0.1, 0.05))
    made = PaintedMesh(PaintedConfig(texture=TextureConfig(encoding="dense", volume_resolution=40)), shape)
    made.encoding.load_state_dict(field().encoding.state_dict())
    return made


def pbr_mesh() -> SurfaceMesh:
    """The same, of a physically based material in light that comes from everywhere alike."""
    config = converted().config.model_copy(
        update={"material": "pbr", "light": LightConfig(environment="white", brightness=1.0)}
    )
    made = SurfaceMesh(config, "cpu")
    made.light()
    made.load_state_dict(converted().state_dict(), strict=False)
    return made


ASSETS: Mapping[str, Callable[[], Representation]] = {
    "field": field,
    "mesh": mesh,
    "gaussians": gaussians,
    "painted": painted,
}
MATERIALS: Mapping[str, Callable[[], Representation]] = {"pbr mesh": pbr_mesh}
"""Assets of a kind that has several materials."""
FRESH: Mapping[str, DistillConfig] = {
    "field": InitNerfConfig(field=FieldConfig(encoding="dense", volume_resolution=24), render=RENDER),
    "mesh": InitNerfConfig(
        representation="mesh",
        mesh=MeshConfig(resolution=12, texture=TextureConfig(encoding="dense", volume_resolution=24), laplacian=1.0),
        render=RENDER,
    ),
    "gaussians": InitNerfConfig(
        representation="gaussians",
        gaussians=GaussiansConfig(count=300, max_count=400, densify_every=2, densify_share=(0.0, 1.0)),
        render=RENDER,
    ),
    "painted": InitNerfConfig(
        representation="painted",
        painted=PaintedConfig(
            file="configs/sketches/chair.obj", texture=TextureConfig(encoding="dense", volume_resolution=24)
        ),
        render=RENDER,
    ),
}
"""A stage that begins with a small asset of the kind."""


@pytest.fixture(params=sorted([*KINDS, *MATERIALS]))
def asset(request: pytest.FixtureRequest) -> Representation:
    return {**ASSETS, **MATERIALS}[request.param]()


def artifact_of(asset: Representation) -> RadianceField:
    return asset.artifact(torch.rand(4, 3, 6, 6), 12, StepRecord("init_nerf"))


def looks(asset: Representation, cameras: Cameras | PosedCameras = AROUND) -> Tensor:
    """(n, 5, size, size) colour on white, opacity and depth."""
    rendering = asset.render(cameras, SIZE)
    return torch.cat([rendering.color, rendering.opacity[:, None], rendering.depth[:, None]], dim=1)


def test_every_kind_has_settings_a_section_and_an_asset_here() -> None:
    assert set(KINDS) == set(SETTINGS) == set(ASSETS) == set(FRESH)
    for name, kind in KINDS.items():
        assert kind.kind == name and isinstance(ASSETS[name](), kind)
        assert isinstance(settings_of(FRESH[name], name), SETTINGS[name])


@pytest.mark.parametrize("background", ["white", "own", torch.tensor([0.0, 0.0, 1.0])], ids=["white", "own", "blue"])
def test_renders_have_their_shapes_and_ranges(asset: Representation, background: str | Tensor) -> None:
    cameras = AROUND[:2]
    shown = asset.render(cameras, SIZE, samples_per_ray=48, background=background, with_normals=True)
    assert shown.color.shape == shown.normals.shape == (2, 3, SIZE, SIZE)
    assert shown.opacity.shape == shown.depth.shape == (2, SIZE, SIZE)
    for values in (shown.color, shown.opacity):
        assert values.isfinite().all() and values.min() >= 0 and values.max() <= 1
    assert not shown.color.requires_grad
    solid, empty = shown.opacity > 0.95, shown.opacity < 1e-3
    assert solid.float().mean() > 0.02 and empty.float().mean() > 0.3
    assert (shown.depth[shown.opacity == 0] == 0).all() and ((shown.depth[solid] - 2.5).abs() < 1).all()
    lengths = shown.normals.norm(dim=1)
    torch.testing.assert_close(lengths[solid], torch.ones_like(lengths[solid]), atol=1e-3, rtol=0)
    if isinstance(background, Tensor):
        assert (shown.color.permute(0, 2, 3, 1)[empty] - background).abs().max() < 0.01
    elif background == "white":
        assert shown.color.permute(0, 2, 3, 1)[empty].min() > 0.99
    assert torch.equal(shown.color, asset.render(cameras, SIZE, samples_per_ray=48, background=background).color)
    with pytest.raises(ValueError, match="background='green'"):
        asset.render(cameras, 4, background="green")


def test_normals_face_the_camera_and_depth_is_where_they_lie(asset: Representation) -> None:
    shown = asset.render(AROUND, SIZE, samples_per_ray=128, with_normals=True)
    origins, directions = AROUND.rays(SIZE, SIZE)
    solid = shown.opacity > 0.99
    towards = -(directions * shown.normals.permute(0, 2, 3, 1)).sum(-1)[solid]
    assert (towards > -0.1).float().mean() > 0.97 and towards.mean() > 0.4
    points = (origins + shown.depth[..., None] * directions)[solid]
    low, high = asset.bounds()
    assert ((points >= low - 1e-3) & (points <= high + 1e-3)).all()


def test_bounds_contain_what_is_seen_and_little_else(asset: Representation) -> None:
    """Each corner's ray bundle: what is opaque projects inside the projected box, and the box is no whole cube."""
    low, high = asset.bounds()
    assert low.shape == high.shape == (3,) and (low >= -1).all() and (high <= 1).all()
    assert (high - low > 0.1).all() and (high - low).prod() < 6
    origins, directions = (rays.reshape(-1, 3) for rays in AROUND.rays(SIZE, SIZE))
    # An antialiased outline reaches half a pixel beyond what the pixels' centres show.
    half_pixel = 2.5 * math.tan(math.radians(42.0) / 2) / SIZE
    low, high = low - half_pixel, high + half_pixel
    reach = torch.stack([(low - origins) / directions, (high - origins) / directions])
    near, far = reach.amin(dim=0).amax(dim=-1), reach.amax(dim=0).amin(dim=-1)
    opacity = asset.render(AROUND, SIZE).opacity.flatten()
    assert opacity[near > far].max() < 1e-3


def test_training_views_are_those_that_are_looked_at(asset: Representation) -> None:
    """Without jitter and light; on a plain background and on its own."""
    asset.begin_stage(RENDER, fresh=False)
    blue = torch.tensor([0.1, 0.2, 0.9])
    for given, named in ((blue.expand(3, 3), blue), (None, "own")):
        views = asset.render_views(AROUND, SIZE, background=given, with_normals=True)
        shown = asset.render(AROUND, SIZE, background=named, with_normals=True)
        torch.testing.assert_close(views.color.detach(), shown.color, atol=0.02, rtol=0)
        torch.testing.assert_close(views.opacity.detach(), shown.opacity, atol=0.02, rtol=0)
        solid = shown.opacity > 0.95
        torch.testing.assert_close(views.depth.detach()[solid], shown.depth[solid], atol=0.02, rtol=0)
        torch.testing.assert_close(views.normals.detach(), shown.normals, atol=0.05, rtol=0)


def test_single_pixels_are_those_of_whole_views(asset: Representation) -> None:
    """Without background, at the same places of each view; `pick` finds them in images."""
    asset.begin_stage(RENDER, fresh=False)
    places = torch.tensor([3, SIZE * 11 + 15, SIZE * 16 + 16, SIZE * 20 + 9, SIZE * SIZE - 1])
    pixels = ViewPixels.of(AROUND, SIZE, SIZE, places)
    found = asset.render_pixels(pixels)
    shown = asset.render(AROUND, SIZE, background=torch.zeros(3))
    assert found.color.shape == (15, 3) and found.opacity.shape == (15,) and found.opacity.max() > 0.9
    torch.testing.assert_close(found.color.detach(), pixels.pick(shown.color), atol=0.02, rtol=0)
    torch.testing.assert_close(found.opacity.detach(), pixels.pick(shown.opacity[:, None])[:, 0], atol=0.02, rtol=0)


def test_light_shades_and_textureless_has_no_colour(asset: Representation) -> None:
    asset.begin_stage(RENDER, fresh=False)
    lights = AROUND.camera_to_world[:, :3, 3]
    white = torch.ones(3, 3)
    plain = asset.render_views(AROUND, SIZE, background=white).color
    lit = asset.render_views(AROUND, SIZE, background=white, shading=Shading("diffuse", lights, 0.3)).color
    grey = asset.render_views(AROUND, SIZE, background=white, shading=Shading("textureless", lights, 0.3)).color
    assert (lit <= plain + 0.02).all() and (plain - lit).max() > 0.05
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() < 0.02


def test_gradients_reach_every_group_and_every_value_of_a_view(asset: Representation) -> None:
    asset.begin_stage(RENDER, fresh=False)
    groups = asset.parameter_groups()
    assert len({group.name for group in groups}) == len(groups) and all(group.rate_factor > 0 for group in groups)
    grouped = [parameter for group in groups for parameter in group.parameters]
    assert len({id(each) for each in grouped}) == len(grouped)
    assert {id(each) for each in grouped} == {id(each) for each in asset.parameters() if each.requires_grad}
    jitter, weights = torch.Generator().manual_seed(0), torch.rand(3, 3, SIZE, SIZE)
    views = asset.render_views(AROUND, SIZE, generator=jitter, regularizers=EVERYTHING)
    own = [*views.losses.values(), *asset.shape_losses(EVERYTHING, torch.Generator().manual_seed(0)).values()]
    assert all(value.dim() == 0 and value.isfinite() and weight > 0 for weight, value in own)
    ((views.color * weights).sum() + views.opacity.square().sum() + sum(value for _, value in own)).backward()
    for group in groups:
        gradients = [each.grad for each in group.parameters]
        assert all(each is not None and each.isfinite().all() for each in gradients), group.name
        assert sum(float(each.abs().sum()) for each in gradients) > 0, group.name


def test_pixels_pull_on_the_cameras(asset: Representation) -> None:
    """The gradient of a camera's azimuth has the sign of a finite difference."""
    asset.begin_stage(RENDER, fresh=False)
    target = asset.render(AROUND[:1], SIZE, background=torch.zeros(3)).opacity
    places = torch.arange(SIZE * SIZE)

    def error(turn_deg: Tensor) -> Tensor:
        cameras = replace(AROUND[:1], azimuth_deg=AROUND.azimuth_deg[:1] + turn_deg)
        found = asset.render_pixels(ViewPixels.of(cameras, SIZE, SIZE, places))
        return (found.opacity.view(1, SIZE, SIZE) - target).square().sum()

    for start in (12.0, -12.0):
        turn = torch.tensor(start, requires_grad=True)
        (slope,) = torch.autograd.grad(error(turn), turn)
        with torch.no_grad():
            measured = error(torch.tensor(start + 2)) - error(torch.tensor(start - 2))
        assert slope.sign() == measured.sign() != 0


def test_learning_brings_it_closer_to_what_is_wanted(asset: Representation) -> None:
    """Ten steps towards another colour, with all that a stage calls, in the order in which it does."""
    asset.begin_stage(RENDER, fresh=False)
    wanted, generator = torch.tensor([0.9, 0.8, 0.1])[:, None, None], torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(
        [
            {"params": list(group.parameters), "lr": 0.02 * group.rate_factor, "name": group.name}
            for group in asset.parameter_groups()
        ]
    )
    errors = []
    for step in range(10):
        position = Position(step, step / 10)
        asset.before_step(position, generator)
        views = asset.render_views(AROUND, SIZE, background=torch.ones(3, 3), generator=generator)
        solid = (views.opacity.detach() > 0.5)[:, None]
        loss = ((views.color - wanted).square() * solid).sum() / solid.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        asset.after_step(position, optimizer)
        errors.append(loss.item())
    assert errors[-1] < 0.9 * errors[0]
    assert {id(each) for group in optimizer.param_groups for each in group["params"]} == {
        id(each) for group in asset.parameter_groups() for each in group.parameters
    }


def test_state_round_trip_renders_identically(asset: Representation) -> None:
    asset.move(turn_about_z(25.0), torch.tensor([0.05, -0.1, 0.1]), 0.9)
    asset.refresh(torch.Generator().manual_seed(1))
    before = looks(asset)
    again = type(asset).from_state(asset.state(), asset.settings())
    assert torch.equal(looks(again), before)
    state = asset.state()
    with torch.no_grad():
        for parameter in asset.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert not torch.equal(looks(asset), before), "and a state shares no memory with the asset"
    asset.load(state)
    assert torch.equal(looks(asset), before)
    assert torch.equal(looks(copy.deepcopy(asset)), before)


def test_artifact_round_trip_through_the_materializer(asset: Representation, tmp_path: Path) -> None:
    written = artifact_of(asset)
    folder = str(tmp_path / "artifact")
    RadianceFieldMaterializer(folder).save(written)
    read = RadianceFieldMaterializer(folder).load(RadianceField)
    assert read.kind == written.kind == asset.kind and read.steps == 12
    again = load_representation(read)
    assert type(again) is type(asset) and again.settings() == asset.settings()
    assert torch.equal(looks(again), looks(asset))
    assert torch.equal(render_asset(read, AROUND, size=SIZE).color, looks(asset)[:, :3])


@pytest.mark.parametrize(("shift", "scale"), [((0.0, 0.0, 0.0), 1.0), ((0.1, -0.05, 0.08), 1.15)])
def test_a_moved_asset_looks_as_from_cameras_moved_back(
    asset: Representation, shift: tuple[float, float, float], scale: float
) -> None:
    tilt = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.3, 0.1], [0.3, 0.0, -0.2], [-0.1, 0.2, 0.0]]))
    moved = copy.deepcopy(asset)
    moved.move(tilt, torch.tensor(shift), scale)
    moved.refresh(torch.Generator().manual_seed(0))
    # A point p of the asset lies at scale * (tilt p + shift) now.
    pose = AROUND.camera_to_world.clone()
    pose[:, :3, :3] = tilt.T @ pose[:, :3, :3]
    pose[:, :3, 3] = (pose[:, :3, 3] / scale - torch.tensor(shift)) @ tilt
    expected = asset.render(PosedCameras(pose, AROUND.fov_y_deg), SIZE, samples_per_ray=192)
    found = moved.render(AROUND, SIZE, samples_per_ray=192)
    assert (found.color - asset.render(AROUND, SIZE).color).abs().max() > 0.3, "else the test says nothing"
    assert (found.color - expected.color).abs().mean() < 4e-3
    assert (found.opacity - expected.opacity).abs().mean() < 4e-3
    solid = (found.opacity > 0.99) & (expected.opacity > 0.99)
    assert ((found.depth - scale * expected.depth)[solid].abs().mean()) < 0.02


def test_turned_about_z_it_looks_as_from_turned_cameras(asset: Representation) -> None:
    expected = asset.render(AROUND, SIZE, samples_per_ray=192).color
    asset.turn_by(50.0)
    asset.refresh(torch.Generator().manual_seed(0))
    turned = replace(AROUND, azimuth_deg=AROUND.azimuth_deg + 50.0)
    assert (asset.render(turned, SIZE, samples_per_ray=192).color - expected).abs().mean() < 4e-3


def test_its_surface_is_where_it_is_seen(asset: Representation) -> None:
    """Vertices project onto what is opaque, to its edge, face outwards, and have the colours that are seen."""
    source = asset_source(asset, 64)
    config = ExportConfig(mesh_resolution=48, mesh_threshold=10.0, colors="vertices", max_triangles=5000)
    cameras = turntable_cameras(12)
    mesh = MeshBuilder(source, config, cameras, source.render(cameras, 48)).build()
    assert len(mesh.faces) > 100 and mesh.vertices.shape == mesh.normals.shape == mesh.colors.shape
    assert mesh.colors.min() >= 0 and mesh.colors.max() <= 1
    assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1, abs=1e-3)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume > 0, "faces wind counter-clockwise outside"
    low, high = (bound.numpy() for bound in asset.bounds())
    assert (mesh.vertices >= low - 0.05).all() and (mesh.vertices <= high + 0.05).all()
    shown, pose = asset.render(AROUND, 64), AROUND.camera_to_world
    local = (torch.from_numpy(mesh.vertices) - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    plane = local[..., :2] / -local[..., 2:] / torch.tan(torch.deg2rad(AROUND.fov_y_deg) / 2)[:, None, None]
    places = torch.stack([plane[..., 0], -plane[..., 1]], dim=-1)[:, None]
    near = torch.nn.functional.max_pool2d(shown.opacity[:, None], 3, stride=1, padding=1)
    seen = torch.nn.functional.grid_sample(near, places, align_corners=False)
    assert (seen > 0.5).float().mean() > 0.97
    depth = torch.nn.functional.grid_sample(shown.depth[:, None], places, align_corners=False, mode="nearest")
    visible = (depth[:, 0, 0] - local.norm(dim=-1)).abs() < 0.03
    color = torch.nn.functional.grid_sample(shown.color, places, align_corners=False)[:, :, 0].transpose(1, 2)
    assert visible.float().mean() > 0.15
    assert (color - torch.from_numpy(mesh.colors))[visible].abs().mean() < 0.12


def test_what_has_a_density_is_dense_inside(asset: Representation) -> None:
    """Kinds without one have triangles, and say so in both ways."""
    low, high = asset.bounds()
    points = torch.stack([(low + high) / 2, torch.tensor([0.99, 0.99, 0.99])])
    found, share = asset.density_and_color(points), asset.filled_share(0.1)
    if found is None:
        assert share is None and asset.triangles() is not None
        return
    density, color = found
    assert density[0] > 5 > 0.1 > density[1] and color.shape == (2, 3) and 0 <= color.min() <= color.max() <= 1
    assert share is not None and 0.01 < share < 0.5


def test_a_running_average_follows_it(asset: Representation) -> None:
    average = RunningAverage(asset, 0.5)
    average.update(asset)
    assert torch.equal(looks(average.module), looks(asset))
    before = [parameter.detach().clone() for parameter in asset.parameters()]
    with torch.no_grad():
        for parameter in asset.parameters():
            parameter.add_(1.0)
    average.update(asset)
    for averaged, old in zip(average.module.parameters(), before, strict=True):
        torch.testing.assert_close(averaged.detach(), old + 0.5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_stage_trains_it_and_the_next_goes_on(kind: str, tmp_path: Path) -> None:
    """From a fresh one, with a running average and all regularisers; guided by images of a ball."""
    changes = {"steps": 6, "views_per_step": 2, "average_decay": 0.5, "check_every": 3, "regularizers": EVERYTHING}
    config = FRESH[kind].model_copy(update=changes)
    runtime = Runtime(StepLog("init_nerf"), tmp_path, progress=False)
    made = distil(DistillInputs(BallGuidance()), config, 0, runtime)
    assert made.kind == kind and made.steps == 6 and made.previews.shape == (8, 3, 64, 64)
    refined = RefineNerfConfig(steps=4, views_per_step=2, render=RENDER)
    further = Runtime(StepLog("refine_nerf"), tmp_path / "further", progress=False)
    after = distil(DistillInputs(BallGuidance(), init=made), refined, 0, further)
    assert after.kind == kind and after.steps == 10
    shown = render_asset(after, AROUND, size=SIZE)
    assert shown.color.isfinite().all() and 0.01 < shown.opacity.mean() < 0.9


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_interrupted_stage_goes_on_where_it_stopped(kind: str, tmp_path: Path) -> None:
    """The same asset in the end as without interruption."""
    config = FRESH[kind].model_copy(update={"steps": 8, "views_per_step": 2, "average_decay": 0.5, "check_every": 4})
    whole = distil(DistillInputs(BallGuidance()), config, 0, Runtime(StepLog("a"), tmp_path / "a", progress=False))
    stopping = iter([False, False, False, True])
    runtime = Runtime(StepLog("b"), tmp_path / "b", should_stop=lambda: next(stopping, False), progress=False)
    part = distil(DistillInputs(BallGuidance()), config, 0, runtime)
    assert part.steps == 4
    rest = distil(DistillInputs(BallGuidance()), config, 0, Runtime(StepLog("b"), tmp_path / "b", progress=False))
    assert rest.steps == 8
    for name, value in whole.state.items():
        torch.testing.assert_close(rest.state[name], value, msg=name)


def test_the_same_seed_makes_the_same_asset() -> None:
    for config in FRESH.values():
        first, second, other = (build_asset(config, seed, torch.device("cpu"), None) for seed in (3, 3, 4))
        assert torch.equal(looks(first), looks(second))
        assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())
        assert other.state().keys() == first.state().keys()


@pytest.mark.parametrize("kind", sorted({"mesh", "gaussians"} - set(KINDS)))
def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} do not exist yet: choose one of field"):
        RefineNerfConfig(representation=kind)


def test_an_artifact_of_an_unknown_kind_is_refused() -> None:
    unknown = RadianceField({}, {}, torch.zeros(0, 3, 1, 1), 0, kind="clay")
    with pytest.raises(ConfigError, match="clay is no kind of asset here. Choose one of: field"):
        load_representation(unknown)
