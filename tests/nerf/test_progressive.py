"""What a stage begins with and widens, shaken cameras, and the losses of Score Jacobian Chaining on rays."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, ShakenCameras, orbit_cameras, random_cameras, shaken, wrap_degrees
from dreambooth3d.config.distillation import InitNerfConfig, RegularizerConfig, RegularizerSchedule
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import CameraJitterConfig, ProgressiveConfig, RenderConfig
from dreambooth3d.guidance import GuidanceLoss
from dreambooth3d.kinds import render_asset
from dreambooth3d.nerf.field import regularizers
from dreambooth3d.nerf.rendering.sampling import DenseSampler
from dreambooth3d.nerf.training import losses
from dreambooth3d.nerf.training.drawing import ViewDraws
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.schedules import factor_at, weights_at
from dreambooth3d.nerf.training.trainer import Trainer
from dreambooth3d.nerf.training.view_loss import view_loss
from dreambooth3d.parallel import ALONE
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from operations.launch.checking import parameter_problems
from tests.nerf.scenes import BallGuidance

RENDER = RenderConfig(sampler="dense", size=8, samples_per_ray=8, occupancy_resolution=8)
DENSE = FieldConfig(encoding="dense", volume_resolution=16)
HASH = FieldConfig(implementation="torch", levels=4, log2_table_size=10, hidden_width=8)


def draws(**changes: object) -> ViewDraws:
    config = InitNerfConfig(views_per_step=64, **changes)
    return ViewDraws(DistillInputs(BallGuidance()), config, torch.Generator().manual_seed(3))


def first_random_cameras(count: int, generator: torch.Generator) -> Cameras:
    """Draws as they were before any of it could be widened or shaken, written out."""
    azimuth = torch.rand(count, generator=generator)
    azimuth = torch.rand(1, generator=generator) + (torch.arange(count) + azimuth) / count
    low, high = (math.sin(math.radians(bound)) for bound in (-10.0, 80.0))
    elevation = torch.rad2deg(torch.asin(low + (high - low) * torch.rand(count, generator=generator)))
    distance = 2.3 + (2.7 - 2.3) * torch.rand(count, generator=generator)
    fov = 39.0 + (45.0 - 39.0) * torch.rand(count, generator=generator)
    return Cameras(torch.remainder(azimuth, 1.0) * 360.0, elevation, distance, fov)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_without_settings_the_views_are_what_they_were(progress: float) -> None:
    """To the bit, and with as many random numbers."""
    drawn, generator = draws(), torch.Generator().manual_seed(3)
    expected = first_random_cameras(64, generator)
    cameras = drawn._shaken(drawn._cameras(progress))
    assert type(cameras) is Cameras
    for name in ("azimuth_deg", "elevation_deg", "distance", "fov_y_deg"):
        assert torch.equal(getattr(cameras, name), getattr(expected, name))
    assert torch.equal(drawn.generator.get_state(), generator.get_state())


def test_views_widen_from_the_front_to_all_around() -> None:
    """At the start they keep to the first ranges, on the way to the mean of both, and then to the whole ones."""
    drawn = draws(progressive=ProgressiveConfig(views_until=0.5))
    bounds = {
        0.0: (45.0, 0.0, 30.0, 2.4, 2.6),
        0.25: (112.5, -5.0, 55.0, 2.35, 2.65),
        0.5: (180.0, -10.0, 80.0, 2.3, 2.7),
    }
    for progress, (azimuth, low, high, near, far) in bounds.items():
        cameras = drawn(progress).cameras
        turned = wrap_degrees(cameras.azimuth_deg).abs()
        assert 0.8 * azimuth < turned.max() <= azimuth + 1e-3
        assert low - 1e-3 <= cameras.elevation_deg.min() and 0.8 * high < cameras.elevation_deg.max() <= high + 1e-3
        assert near - 1e-3 <= cameras.distance.min() and cameras.distance.max() <= far + 1e-3


def test_one_batch_still_sees_all_of_a_narrow_range() -> None:
    cameras = random_cameras(9, torch.Generator().manual_seed(0), azimuth_deg=(-45.0, 45.0))
    sectors = ((wrap_degrees(cameras.azimuth_deg) + 45.0) / 10.0).long()
    assert len(set(sectors.tolist())) >= 8, "a random offset may put two of them into one sector"


def seen_at(cameras: Cameras, points: Tensor) -> Tensor:
    """(n, 2) place in the camera's own plane at unit depth of points (n, 3), by the inverse of the pose."""
    local = torch.linalg.solve(cameras.camera_to_world, torch.cat([points, torch.ones(len(points), 1)], 1)[..., None])
    return local[:, :2, 0] / -local[:, 2:3, 0]


def test_shaken_cameras_look_past_the_centre_by_what_they_say() -> None:
    straight = orbit_cameras(torch.linspace(0, 350, 400), elevation_deg=20.0)
    cameras = shaken(straight, torch.Generator().manual_seed(1), position=0.2, target=0.1, roll_deg=5.0)
    assert isinstance(cameras, ShakenCameras) and cameras.view_words() == straight.view_words()
    pose = cameras.camera_to_world
    eye = torch.eye(3).expand(400, 3, 3)
    torch.testing.assert_close(pose[:, :3, :3].mT @ pose[:, :3, :3], eye, atol=1e-5, rtol=0)
    assert torch.all(torch.linalg.det(pose[:, :3, :3]) > 0.99)
    moved = (pose[:, :3, 3] - straight.camera_to_world[:, :3, 3]).abs()
    assert 0.19 < moved.max() <= 0.2 + 1e-5
    torch.testing.assert_close(seen_at(cameras, cameras.target), torch.zeros(400, 2), atol=1e-5, rtol=0)
    assert 0.08 < cameras.target.std() < 0.12 and seen_at(cameras, torch.zeros(400, 3)).norm(dim=1).mean() > 0.02
    tilt = torch.rad2deg(torch.asin(pose[:, 2, 0]))
    assert 4.0 < tilt.std() < 6.0, "the horizon is rolled"


def test_shaken_cameras_stay_shaken_in_parts_and_on_the_way() -> None:
    errors = {"position": 0.2, "target": 0.0, "roll_deg": 3.0}
    cameras = shaken(orbit_cameras(torch.arange(4.0)), torch.Generator().manual_seed(1), **errors)
    part = cameras[1:3].map(lambda values: values)
    assert isinstance(part, ShakenCameras)
    torch.testing.assert_close(part.camera_to_world, cameras.camera_to_world[1:3])
    assert not torch.allclose(part.rays(4, 4)[1], Cameras(*cameras[1:3]._values()[:4]).rays(4, 4)[1], atol=1e-3)


def test_jitter_shakes_what_guidance_sees() -> None:
    drawn = draws(camera_jitter=CameraJitterConfig(position=0.1))
    cameras = drawn(0.5).cameras
    assert isinstance(cameras, ShakenCameras) and 0.05 < cameras.shift.abs().max() <= 0.1
    assert not cameras.target.any() and not cameras.roll_deg.any()


def trained(field: FieldConfig, steps: int, folder: Path, **progressive: object) -> Trainer:
    config = InitNerfConfig(
        steps=10, views_per_step=2, field=field, render=RENDER, progressive=ProgressiveConfig(**progressive)
    )
    trainer = Trainer(DistillInputs(BallGuidance()), config, 0, Runtime(StepLog("init_nerf"), folder))
    for _ in range(steps):
        trainer.train_step()
    return trainer


def levels(trainer: Trainer) -> list[Tensor]:
    """The parameters of each level, the coarsest first."""
    encoding = trainer.asset.encoding
    if hasattr(encoding, "grid"):
        sizes = [size * 2 for *_, size in encoding.levels]
        return [level.detach().clone() for level in encoding.grid["params"].split(sizes)]
    return [level.detach().clone() for level in encoding.levels]


def red_is_front(images: Tensor) -> Tensor:
    """(n, 4) logits of a scorer to whom the front is red, as the ball's is, and all else blue."""
    red = (images[:, 0] - images[:, 2]).flatten(1).mean(1)
    return torch.stack([60 * red, torch.zeros_like(red), -60 * red, torch.full_like(red, -99.0)], dim=1)


class TurnedBall(BallGuidance):
    """The ball with its front at 130 degrees."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        return super().__call__(images, replace(cameras, azimuth_deg=cameras.azimuth_deg - 130.0), progress)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_field_without_photos_is_turned_to_its_front(wanted: bool, tmp_path: Path) -> None:
    config = InitNerfConfig(
        steps=60, views_per_step=2, field=FieldConfig(encoding="dense", volume_resolution=24, background="white"),
        render=RenderConfig(size=24, samples_per_ray=24), regularizers=RegularizerConfig(sparsity=0, opacity=0),
        random_background_probability=0.0, face_front=wanted,
        guards={"janus": {"action": "off"}, "clip_i": {"action": "off"}},
    )  # fmt: skip
    inputs = DistillInputs(TurnedBall(), view_logits=red_is_front)
    trainer = Trainer(inputs, config, 0, Runtime(StepLog("init_nerf"), tmp_path, progress=False))
    for _ in range(25):
        trainer.train_step()
    assert bool((trainer.asset.turn - torch.eye(3)).abs().max() > 0.5) is wanted, "first at 40 % of the stage"
    # What guidance wants from there on has its front at the front, as a model of views has.
    trainer.guidance = BallGuidance() if wanted else TurnedBall()
    field = trainer.run(trainer.runtime.resume_point("state"))
    sides = orbit_cameras(torch.tensor([0.0, 130.0]), elevation_deg=0.0)
    shown = render_asset(field, sides, size=33, samples_per_ray=48).color[:, :, 16, 16]
    front = shown[0 if wanted else 1]
    assert front[0] > 0.6 and front[2] < 0.5
    assert trainer.state()["targets"] == {"faced": True}


@pytest.mark.parametrize("field", [DENSE, HASH], ids=["dense", "hash_grid"])
def test_fine_levels_begin_to_learn_one_after_the_other(field: FieldConfig, tmp_path: Path) -> None:
    fresh = levels(trained(field, 0, tmp_path))
    moved = {}
    for steps in (1, 4, 7):
        after = levels(trained(field, steps, tmp_path, levels_until=0.6))
        moved[steps] = [not torch.equal(old, new) for old, new in zip(fresh, after, strict=True)]
    count = len(fresh)
    assert moved[1] == [True] + [False] * (count - 1)
    assert moved[4][:2] == [True, True] and not moved[4][-1]
    assert moved[7] == [True] * count, "from 0.6 of the stage on"
    assert all(not torch.equal(old, new) for old, new in zip(fresh, levels(trained(field, 1, tmp_path)), strict=True))


def test_emptiness_is_a_mean_over_all_samples_skipped_ones_included() -> None:
    trainer = trained(DENSE, 0, Path("unused"))
    field = trainer.asset
    field.occupancy.update(field.density, 0.01, torch.Generator().manual_seed(0))
    origins, directions = (rays.reshape(-1, 3) for rays in orbit_cameras(torch.tensor([0.0])).rays(8, 8))
    samples = DenseSampler(8)(origins, directions, field.occupancy, None)
    weights = torch.rand(len(samples.rays), generator=torch.Generator().manual_seed(0))
    assert 0 < len(weights) < 8 * 64, "some samples are skipped"
    expected = sum(math.log(1 + 10 * value) for value in weights.tolist()) / (8 * 64)
    assert regularizers.emptiness(samples, weights, 10.0).item() == pytest.approx(expected, rel=1e-5)


def test_emptiness_rises_once_the_shape_has_formed() -> None:
    trainer = trained(DENSE, 0, Path("unused"))
    weights = RegularizerConfig(sparsity=0, opacity=0, emptiness=2.0, emptiness_rise=5.0, emptiness_rise_at=0.4)
    config = trainer.config.model_copy(update={"regularizers": weights})
    found = {}
    for progress in (0.39, 0.4):
        batch = replace(trainer.views(0.3), progress=progress)
        batch = replace(batch, cameras=orbit_cameras(torch.tensor([0.0, 90.0])))
        _, figures = view_loss(trainer.asset, batch, BallGuidance(), config, None, ALONE)
        found[progress] = (float(figures["loss"]) - float(figures["guidance_loss"])) / float(figures["emptiness"])
    assert found == {0.39: pytest.approx(2.0, rel=1e-3), 0.4: pytest.approx(10.0, rel=1e-3)}


def test_a_schedule_is_numpys_interpolation_and_jumps_where_two_points_meet() -> None:
    points = ((0.1, 0.5), (0.4, 2.0), (0.8, 0.0))
    for progress in (0.0, 0.1, 0.25, 0.4, 0.55, 0.8, 1.0):
        expected = np.interp(progress, *zip(*points, strict=True))
        assert factor_at(points, progress) == pytest.approx(expected)
    jump = ((0.5, 1.0), (0.5, 20.0))
    assert [factor_at(jump, progress) for progress in (0.0, 0.49, 0.5, 1.0)] == [1.0, 1.0, 20.0, 20.0]
    assert factor_at((), 0.3) == 1.0


def test_a_schedule_changes_what_weights_come_to_in_the_loss() -> None:
    trainer = trained(DENSE, 0, Path("unused"))
    schedule = RegularizerSchedule(center_depth=((0.0, 0.1), (0.5, 1.0)), smoothness=((0.5, 0.0), (0.5, 1.0)))
    weights = RegularizerConfig(sparsity=0, opacity=0, center_depth=4.0, smoothness=3.0, schedule=schedule)
    config = trainer.config.model_copy(update={"regularizers": weights})
    found = {}
    for progress in (0.0, 0.25, 0.75):
        batch = replace(trainer.views(0.3), progress=progress)
        _, figures = view_loss(trainer.asset, batch, BallGuidance(), config, None, ALONE)
        found[progress] = (float(figures["loss"]) - float(figures["guidance_loss"])) / float(figures["center_depth"])
    factors = {0.0: 0.1, 0.25: 0.55, 0.75: 1.0}
    assert found == {progress: pytest.approx(4.0 * factor, rel=1e-3) for progress, factor in factors.items()}
    assert [weights_at(weights, progress).smoothness for progress in (0.49, 0.5)] == [0.0, 3.0]


def test_points_out_of_order_are_one_sentence() -> None:
    settings = {"init_nerf": {"regularizers": {"schedule": {"opacity": [[0.5, 1.0], [0.2, 2.0]]}}}}
    (problem,) = parameter_problems({"generation": {"prompt": "a dog"}, **settings})
    assert problem == (
        "parameters.init_nerf.regularizers.schedule.opacity: the shares of the stage are not in order: sort the points "
        "by their first number."
    )


def test_center_depth_wants_the_subject_in_the_middle() -> None:
    middle, rim = torch.zeros(1, 64, 64), torch.full((1, 64, 64), 2.0)
    middle[:, 7:57, 7:57], rim[:, 7:57, 7:57] = 2.0, 0.0
    assert losses.center_depth(middle).item() == pytest.approx(-math.log(2.0), rel=1e-5)
    assert losses.center_depth(rim).item() > 100
    empty = torch.zeros(1, 64, 64, requires_grad=True)
    losses.center_depth(empty).backward()
    assert empty.grad[0, 32, 32] < 0 < empty.grad[0, 0, 0], "an empty middle fills, though nothing is there yet"
