"""Cameras of photos: found again where the truth is known, refused where nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreambooth3d.config import CameraConfig, FieldConfig, PhotoTargetsConfig
from dreambooth3d.nerf.cameras import Cameras, wrap_degrees
from dreambooth3d.nerf.field import Field
from dreambooth3d.nerf.photo_targets import PhotoTargets
from dreambooth3d.nerf.poses import PhotoCameras, find_cameras
from dreambooth3d.nerf.targets import TargetViews
from dreambooth3d.record import StepLog
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS

DISTANCE, FOV_Y_DEG = 2.5, 42.0
TRUE = Cameras(
    torch.tensor([-42.0, 4.0, 33.0, 97.0, 171.0]),
    torch.tensor([12.0, 25.0, 8.0, 30.0, 18.0]),
    torch.tensor([2.35, 2.65, 2.5, 2.6, 2.4]),
    torch.full((5,), FOV_Y_DEG),
)


@pytest.fixture(scope="module")
def robot() -> Field:
    """A dense volume with the true shape and colours of a toybox robot, carved and painted from true views."""
    recipe = DEVELOPMENT_SUBJECTS["android"]
    field = Field(FieldConfig(encoding="dense", volume_resolution=48))
    points = torch.cartesian_prod(*[torch.linspace(-1, 1, 48)] * 3)
    solid, color, seen = torch.ones(len(points)), torch.zeros(len(points), 3), torch.zeros(len(points))
    azimuth = torch.arange(0.0, 360.0, 15.0)
    around = Cameras(azimuth, azimuth * 0 + 20, azimuth * 0 + DISTANCE, azimuth * 0 + FOV_Y_DEG)
    truth = render_views(recipe, around, torch.ones(3), 96)
    for view in range(len(around)):
        pose = around.camera_to_world[view]
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        plane = local[:, :2] / -local[:, 2:] / torch.tan(torch.deg2rad(torch.tensor(FOV_Y_DEG)) / 2)
        place = torch.stack([plane[:, 0], -plane[:, 1]], dim=-1).view(1, 1, -1, 2)

        def at(values: Tensor, place: Tensor = place) -> Tensor:
            return torch.nn.functional.grid_sample(values[None], place, align_corners=False)[0, :, 0]

        solid *= (at(truth.mask[view][None].float())[0] > 0.5).float()
        distance = (points - pose[:3, 3]).norm(dim=-1)
        visible = ((at(truth.depth[view][None])[0] - distance).abs() < 0.08).float()
        color += at(truth.image[view]).T * visible[:, None]
        seen += visible
    color = (color / seen[:, None].clamp(min=1)).clamp(0.02, 0.98)
    logits = torch.cat([(solid * 20 - 10)[:, None], color.logit()], dim=-1)
    volume = logits.view(48, 48, 48, 4).permute(3, 2, 1, 0)[None]
    with torch.no_grad():
        for level in field.encoding.levels:
            level.zero_()
        field.encoding.levels[-1].copy_(volume / field.encoding.volume().new_tensor(10.0))
    field.occupancy.update(field.density, 0.01, torch.Generator().manual_seed(0))
    return field


def photos(words: tuple[str, ...] = ()) -> TargetViews:
    images = render_views(DEVELOPMENT_SUBJECTS["android"], TRUE, torch.tensor([0.5, 0.7, 0.6]), 64).image
    return replace(TargetViews.of(images), words=words)


def angles_off(found: Cameras) -> Tensor:
    return torch.stack(
        [wrap_degrees(found.azimuth_deg - TRUE.azimuth_deg).abs(), (found.elevation_deg - TRUE.elevation_deg).abs()]
    )


def test_cameras_of_true_views_are_found_again(robot: Field) -> None:
    result = find_cameras(robot, photos(), distance=DISTANCE, fov_y_deg=FOV_Y_DEG)
    assert angles_off(result.cameras).max() < 8
    torch.testing.assert_close(result.cameras.distance, TRUE.distance, atol=0.12, rtol=0)
    assert result.cameras.distance.mean().item() == pytest.approx(DISTANCE, abs=1e-4)
    assert result.found.all() and result.overlap.min() > 0.75 and result.margin.min() > 0


def test_a_second_search_is_no_worse(robot: Field) -> None:
    first = find_cameras(robot, photos(), distance=DISTANCE, fov_y_deg=FOV_Y_DEG)
    second = find_cameras(robot, photos(), distance=DISTANCE, fov_y_deg=FOV_Y_DEG, start=first.cameras)
    assert second.error.mean() <= first.error.mean() + 0.01
    assert angles_off(second.cameras).max() < 8


def test_view_words_bound_the_search(robot: Field) -> None:
    wrong = photos(("back", "back", "back", "front", "front"))
    result = find_cameras(robot, wrong, distance=DISTANCE, fov_y_deg=FOV_Y_DEG)
    azimuth = wrap_degrees(result.cameras.azimuth_deg).abs()
    assert (azimuth[:3] > 105).all() and (azimuth[3:] < 75).all()


def test_a_photo_of_something_else_is_not_found(robot: Field) -> None:
    image = torch.full((2, 3, 64, 64), 0.6)
    image[:, :, 50:60, 2:12] = 0.0
    views = TargetViews.of(image)
    assert views.trusted.all()
    assert not find_cameras(robot, views, distance=DISTANCE, fov_y_deg=FOV_Y_DEG).found.any()


def test_surest_are_the_least_ambiguous_of_those_found() -> None:
    overlap, margin = torch.tensor([0.9, 0.3, 0.9, 0.9, 0.9]), torch.tensor([1.0, 9.0, 3.0, 0.0, 2.0])
    result = PhotoCameras(TRUE, torch.zeros(5), overlap, margin)
    assert result.found.tolist() == [True, False, True, True, True]
    assert result.surest(2).tolist() == [False, False, True, False, True]
    assert result.surest(5).tolist() == result.found.tolist()


def test_photos_join_one_after_the_other(robot: Field) -> None:
    targets = PhotoTargets(photos(), PhotoTargetsConfig(search_every=0.1, searches_until_all=5), CameraConfig())
    used = []
    for search in range(6):
        targets.follow(robot, search * 0.1 + 0.01)
        used.append(len(targets.found))
    assert used == [1, 2, 3, 4, 5, 5]


def test_targets_search_when_it_is_time_and_restore(robot: Field) -> None:
    config = PhotoTargetsConfig(start=0.5, search_every=0.3)
    targets = PhotoTargets(photos(), config, CameraConfig())
    targets.follow(robot, 0.49)
    assert targets.found is None and targets.state() == {"next_search": 0.5, "searches": 0}
    targets.follow(robot, 0.5)
    assert len(targets.found) == 5 and targets.next_search == pytest.approx(0.8)
    again = PhotoTargets(photos(), config, CameraConfig())
    again.restore(targets.state())
    assert torch.equal(again.found.cameras.azimuth_deg, targets.found.cameras.azimuth_deg)
    assert again.next_search == targets.next_search
    log = StepLog("init_nerf")
    targets.report(robot, log)
    record = log.record()
    assert record.metrics["photos_found"] == 5 and record.images["photo_cameras"].shape == (134, 332, 3)
