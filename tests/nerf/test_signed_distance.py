"""Fields of a signed distance, against SciPy's Laplace distribution, quadrature and the ball that they begin as."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.config.distillation import InitNerfConfig, RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.nerf.field import regularizers
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.sampling import DenseSampler
from dreambooth3d.nerf.rendering.volume import render_rays
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import turn_about_z
from dreambooth3d.runtime import Runtime
from tests.nerf.scenes import BallGuidance, colored_ball

SMALL = {"levels": 4, "log2_table_size": 10, "volume_resolution": 40}


def made(encoding: str = "dense", **settings: object) -> Field:
    torch.manual_seed(0)
    return Field(FieldConfig(geometry="sdf", encoding=encoding, **SMALL | settings))


@pytest.fixture
def points() -> Tensor:
    inside = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return inside[(inside.norm(dim=-1) < 0.95) & (inside.norm(dim=-1) > 0.1)]


@pytest.mark.parametrize("encoding", ["dense", "hash_grid"])
def test_a_fresh_field_is_a_ball_with_volsdfs_density(encoding: str, points: Tensor) -> None:
    field = made(encoding, blob_radius=0.4, initial_sharpness=30.0)
    expected = points.norm(dim=-1) - 0.4
    distance = field.signed_distance(points)
    assert (distance - expected).abs().max() < (0.01 if encoding == "dense" else 0.03)
    laplace = 30.0 * stats.laplace.cdf(-distance.detach().double().numpy(), scale=1 / 30.0)
    np.testing.assert_allclose(field.density(points).detach().numpy(), laplace, rtol=1e-3, atol=1e-4)
    assert not field.density(torch.tensor([[0.9, 0.9, 0.9]])).any()


def test_opacity_is_the_integral_of_that_density() -> None:
    """Along rays that pass the middle of the ball at a distance, inside it and outside."""
    field = made(volume_resolution=96, blob_radius=0.5, initial_sharpness=15.0)
    passing = torch.tensor([0.0, 0.4, 0.6, 0.8])
    origins = torch.stack([torch.full_like(passing, 2.0), passing, torch.zeros_like(passing)], dim=-1)
    directions = torch.tensor([[-1.0, 0.0, 0.0]]).expand(4, 3)
    rays = render_rays(field, origins, directions, sampler=DenseSampler(512))
    for height, opacity in zip(passing.tolist(), rays.opacity.tolist(), strict=True):
        half = math.sqrt(1 - height**2)

        def density(x: float, height: float = height) -> float:
            return 15.0 * float(stats.laplace.cdf(0.5 - math.hypot(x, height), scale=1 / 15.0))

        depth, _ = integrate.quad(density, -half, half, limit=200)
        assert opacity == pytest.approx(1 - math.exp(-depth), abs=3e-3)


def test_the_eikonal_loss_knows_a_distance_from_twice_one() -> None:
    field, generator = made(), torch.Generator().manual_seed(0)
    assert regularizers.eikonal(field, generator).item() < 0.01
    with torch.no_grad():
        for level in field.encoding.levels:
            level.mul_(2)
    assert regularizers.eikonal(field, generator).item() == pytest.approx(1.0, abs=0.05)
    (weight, value) = field.shape_losses(RegularizerConfig(), generator)["eikonal"]
    assert weight == field.config.eikonal > 0
    value.backward()
    assert field.encoding.levels[-1].grad.abs().sum() > 0
    assert "eikonal" not in Field(FieldConfig(encoding="dense")).shape_losses(RegularizerConfig(), generator)


def test_moves_keep_distances_and_opacity(points: Tensor) -> None:
    field = made(blob_radius=0.3)
    opacity = render_rays(
        field, torch.tensor([[2.0, 0.25, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]]), sampler=DenseSampler(256)
    ).opacity
    field.move(turn_about_z(30.0), torch.tensor([0.1, 0.0, -0.2]), 1.2)
    middle = 1.2 * torch.tensor([0.1, 0.0, -0.2])
    near = middle + 0.5 * points
    expected = (near - middle).norm(dim=-1) - 0.3 * 1.2
    assert (field.signed_distance(near) - expected).abs().max() < 0.02
    angle = math.radians(30)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]])
    origin = 1.2 * (turn @ torch.tensor([2.0, 0.25, 0.0]) + torch.tensor([0.1, 0.0, -0.2]))
    direction = turn @ torch.tensor([-1.0, 0.0, 0.0])
    moved = render_rays(field, origin[None], direction[None], sampler=DenseSampler(256)).opacity
    torch.testing.assert_close(moved, opacity, atol=0.01, rtol=0)


def test_distillation_grows_the_ball_to_the_guidances(tmp_path: Path) -> None:
    """From a radius of 0.35 to silhouettes of 0.5; what it holds stays a distance, and normals point outwards."""
    config = InitNerfConfig(
        field=FieldConfig(geometry="sdf", encoding="dense", volume_resolution=24, blob_radius=0.35, eikonal=0.05),
        steps=60, views_per_step=2, check_every=60, render=RenderConfig(size=32, samples_per_ray=32),
        regularizers=RegularizerConfig(sparsity=0, opacity=0), random_background_probability=0.0,
        convergence_patience=0, face_front=False,
    )  # fmt: skip
    artifact = distil(DistillInputs(BallGuidance()), config, 0, Runtime(StepLog("init_nerf"), tmp_path))
    field = Field.from_state(artifact.state, artifact.config)
    cameras = orbit_cameras(torch.tensor([20.0, 140.0, 260.0]))
    expected = (colored_ball(cameras, 64) < 0.999).any(dim=1)
    overlap = []
    for one in (Field.fresh(config.field, config.render, "cpu"), field):
        shown = one.render(cameras, 64).opacity > 0.5
        overlap.append(((shown & expected).sum() / (shown | expected).sum()).item())
    assert overlap[0] < 0.85 and overlap[1] > 0.93
    shell = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert (field.normals(0.5 * shell) * shell).sum(-1).mean() > 0.9
    assert regularizers.eikonal(field, torch.Generator().manual_seed(2)).item() < 0.1
    assert "sharpness" in {*artifact.record.series["name"]} and field.sharpness > 21
    assert {group.name for group in field.parameter_groups()} == {"field", "sharpness"}
    again = Field.from_state(field.state(), field.settings())
    assert torch.equal(again.density(shell), field.density(shell))
