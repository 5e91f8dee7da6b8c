"""The mesh as an asset: how it begins, what it learns. What all kinds have to do is tested in `representation`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.cameras import spread_cameras, turntable_cameras
from dreambooth3d.config.distillation import (
    FitTrueViewsConfig,
    ReconstructionConfig,
    RefineNerfConfig,
    RegularizerConfig,
)
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation.ceiling import fit_true_views
from dreambooth3d.evaluation.pixels import Views, mask_iou, mean_baseline, psnr_fg
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.kinds import build_asset, render_asset
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.representation.interface import Rendering, turn_about_z
from dreambooth3d.runtime import Runtime
from dreambooth3d.surface import regularizers
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from tests.representation.test_conformance import field
from tests.representation.test_growing import Fog
from tests.surface.scenes import AROUND, TINY, ball, painted

SIZE = 48


def overlap(first: Rendering, second: Rendering) -> float:
    both = torch.minimum(first.opacity, second.opacity).sum() / torch.maximum(first.opacity, second.opacity).sum()
    return both.item()


def test_a_fresh_mesh_is_the_ellipsoid_that_is_asked_for() -> None:
    made = SurfaceMesh(MeshConfig(resolution=24, initial_radii=(0.6, 0.3, 0.45)))
    low, high = made.bounds()
    torch.testing.assert_close(high, torch.tensor([0.6, 0.3, 0.45]), atol=0.01, rtol=0)
    torch.testing.assert_close(low, -high, atol=0.01, rtol=0)


def test_a_converted_mesh_looks_as_its_field() -> None:
    """In shape, colours, place and background; also where the field was moved."""
    source = field()
    source.move(turn_about_z(70.0), torch.tensor([0.1, 0.05, -0.1]), 0.9)
    source.refresh(torch.Generator().manual_seed(0))
    made = SurfaceMesh.converted(source, MeshConfig(resolution=32), RenderConfig(), "cpu")
    expected, found = source.render(AROUND, SIZE, background="own"), made.render(AROUND, SIZE, background="own")
    assert overlap(found, expected) > 0.95
    solid = (expected.opacity > 0.99) & (found.opacity > 0.99)
    assert (found.color - expected.color).abs().mean(dim=1)[solid].mean() < 0.05
    deeper = (expected.depth - found.depth)[solid].mean()
    assert 0 < deeper < 0.06, "rays reach into a soft field, whose outlines decide where the surface is"
    assert made.config.texture.encoding == "dense" and made.config.texture.volume_resolution == 40


def test_another_texture_learns_the_colours_of_the_field() -> None:
    source = field()
    asked = MeshConfig(resolution=24, texture=TextureConfig(encoding="hash_grid", levels=6, log2_table_size=12))
    made = SurfaceMesh.converted(source, asked, RenderConfig(), "cpu")
    own = SurfaceMesh.converted(source, MeshConfig(resolution=24), RenderConfig(), "cpu")
    difference = (made.render(AROUND, SIZE).color - own.render(AROUND, SIZE).color).abs().mean(dim=1)
    assert difference[own.render(AROUND, SIZE).opacity > 0.99].mean() < 0.05
    assert made.config.texture == asked.texture


def test_a_stage_makes_a_mesh_of_a_field_and_hands_it_on() -> None:
    init = field().artifact(torch.zeros(8, 3, 8, 8), 5, StepRecord("init_nerf"))
    config = RefineNerfConfig(representation="mesh", mesh=MeshConfig(resolution=24))
    made = build_asset(config, 0, torch.device("cpu"), init)
    assert isinstance(made, SurfaceMesh) and overlap(made.render(AROUND, SIZE), field().render(AROUND, SIZE)) > 0.95
    kept = made.artifact(torch.zeros(8, 3, 8, 8), 9, StepRecord("refine_nerf"))
    again = build_asset(RefineNerfConfig(), 0, torch.device("cpu"), kept)
    assert torch.equal(again.render(AROUND, SIZE).color, made.render(AROUND, SIZE).color)


def test_a_given_mesh_is_taken_with_its_shape() -> None:
    box = trimesh.creation.box((0.9, 0.6, 0.7))
    made = SurfaceMesh.of_mesh(box, MeshConfig(resolution=40))
    found = made.triangles()
    mesh = trimesh.Trimesh(found.vertices.numpy(), found.faces.numpy(), process=False)
    assert mesh.volume == pytest.approx(0.9 * 0.6 * 0.7, rel=0.03) and mesh.is_watertight


@pytest.mark.parametrize("thin", [trimesh.creation.box((0.9, 0.6, 0.001))])
def test_what_is_too_thin_is_refused(thin: trimesh.Trimesh) -> None:
    with pytest.raises(ConfigError, match="resolution=16: what the mesh begins from is too thin"):
        SurfaceMesh.of_mesh(thin.apply_translation((0, 0, 0.03)), TINY)


def test_what_has_no_surface_cannot_become_a_mesh() -> None:
    empty = field()
    with torch.no_grad():
        empty.encoding.levels[-1][:, 0] = -5.0
    with pytest.raises(ConfigError, match="nothing of the field is solid enough"):
        SurfaceMesh.converted(empty, None, RenderConfig(), "cpu")
    with pytest.raises(ConfigError, match=f"mesh cannot go on from {Fog.kind}"):
        SurfaceMesh.converted(Fog(torch.zeros(4, 3)), None, RenderConfig(), "cpu")


def test_an_empty_mesh_renders_nothing_and_takes_gradients() -> None:
    made = SurfaceMesh(TINY)
    made.set_distance(torch.ones_like(made.distance))
    views = made.render_views(AROUND, 16, background=torch.ones(4, 3))
    assert views.opacity.max() == 0 and (views.color == 1).all()
    views.color.sum().backward()
    assert made.bounds()[1].tolist() == [0, 0, 0] and len(made.triangles().faces) == 0
    assert not made.shape_losses(RegularizerConfig(), torch.Generator())


def test_depth_and_normals_are_those_of_a_ball() -> None:
    made = SurfaceMesh(MeshConfig(resolution=40, initial_radii=(0.5, 0.5, 0.5)))
    shown = made.render(AROUND, SIZE, with_normals=True)
    origins, directions = AROUND.rays(SIZE, SIZE)
    along = -(origins * directions).sum(-1)
    inside = 0.25 - (origins.square().sum(-1) - along.square())
    solid = (inside > 0.06) & (shown.opacity == 1)
    depth = along - inside.clamp(min=0).sqrt()
    error = (shown.depth - depth)[solid].abs()
    assert (error < 0.005).float().mean() > 0.97 and error.max() < 0.05
    expected = torch.nn.functional.normalize(origins + depth[..., None] * directions, dim=-1)
    assert (shown.normals.permute(0, 2, 3, 1) * expected).sum(-1)[solid].min() > 0.99


def test_losses_of_shape_vanish_on_a_plane_and_grow_with_noise() -> None:
    vertices, triangles = ball()
    noise = 0.01 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    for loss in (regularizers.laplacian, regularizers.normal_consistency):
        assert loss(vertices + noise, triangles) > 1.5 * loss(vertices, triangles) > 0
        flat = vertices * torch.tensor([1.0, 1.0, 0.0])
        assert regularizers.normal_consistency(flat[:, [0, 1, 2]], triangles) >= 0
    cube = trimesh.creation.box((1, 1, 1)).subdivide()
    normals = regularizers.face_normals(torch.from_numpy(cube.vertices), torch.from_numpy(cube.faces))
    torch.testing.assert_close(normals / normals.norm(dim=1, keepdim=True), torch.from_numpy(cube.face_normals))


def test_sign_changes_are_the_entropy_of_crossed_edges() -> None:
    _, triangles = ball()
    signed = torch.where(triangles.inside, -0.5, 2.0)
    expected = torch.log1p(torch.exp(torch.tensor(0.5))) + torch.log1p(torch.exp(torch.tensor(2.0)))
    torch.testing.assert_close(regularizers.sign_changes(signed, triangles), expected)


TRUTH = GroundTruth({"class_noun": "dog", "main": "red", "second": "white", "seed": 3})
FIT = FitTrueViewsConfig(
    representation="mesh",
    steps=80,
    views_per_step=1,
    count=18,
    view_size=32,
    reconstruction=ReconstructionConfig(views_per_step=4),
    learning_rate=0.03,
    final_learning_rate=0.01,
    mesh=MeshConfig(resolution=20, texture=TextureConfig(encoding="dense", volume_resolution=24)),
    render=RenderConfig(size=32),
    regularizers=RegularizerConfig(sparsity=0.0, opacity=0.0),
)


def test_an_ellipsoid_becomes_what_true_views_show(tmp_path: Path) -> None:
    fitted = fit_true_views(TRUTH, FIT, 0, Runtime(StepLog("fit_true_views"), tmp_path, progress=False))
    cameras = turntable_cameras()[list(range(0, 36, 4))]
    truth = true_views(TRUTH, cameras, 32)
    shown = render_asset(fitted, cameras, size=32)
    views = Views(shown.color, shown.opacity)
    assert (psnr_fg(views, truth) > psnr_fg(mean_baseline(truth), truth) + 2).all()
    assert psnr_fg(views, truth).mean() > 16 and mask_iou(views, truth).mean() > 0.8


def test_colours_do_not_change_when_it_is_looked_at_from_elsewhere() -> None:
    """A point has one colour: what two cameras see of it is the same."""
    made = painted(SurfaceMesh(TINY))
    shown = made.render(spread_cameras(1), 64)
    found = made.triangles()
    points = found.vertices
    density, color = made.density_and_color(points)
    torch.testing.assert_close(color, found.colors, atol=1e-4, rtol=0)
    assert density.min() > 0 and shown.color.std() > 0.05
