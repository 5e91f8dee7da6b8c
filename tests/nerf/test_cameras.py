"""Cameras: conventions, rays, random ranges."""

import math

import pytest
import torch

from dreambooth3d.cameras import Cameras, orbit_cameras, random_cameras, turntable_cameras, view_word
from dreambooth3d.errors import ArtifactError


@pytest.fixture
def cameras() -> Cameras:
    return random_cameras(64, torch.Generator().manual_seed(0))


def test_poses_are_rotations_that_look_at_the_origin(cameras: Cameras) -> None:
    pose = cameras.camera_to_world.double()
    rotation, position = pose[:, :3, :3], pose[:, :3, 3]
    identity = torch.eye(3, dtype=torch.float64).expand(64, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(64, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(position.norm(dim=-1), cameras.distance.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation[:, :, 2] * position.norm(dim=-1, keepdim=True), position, atol=1e-5, rtol=0)
    assert (rotation[:, 2, 1] > 0).all()  # up is up


def test_front_is_on_plus_x_and_left_of_the_image_is_minus_y() -> None:
    camera = orbit_cameras(torch.tensor([0.0]), elevation_deg=0.0)
    torch.testing.assert_close(camera.camera_to_world[0, :3, 3], torch.tensor([2.5, 0.0, 0.0]))
    origins, directions = camera.rays(4, 4)
    at_center_plane = origins + 2.5 * directions
    assert (at_center_plane[0, :, 0, 1] < 0).all() and (at_center_plane[0, :, -1, 1] > 0).all()
    assert (at_center_plane[0, 0, :, 2] > 0).all() and (at_center_plane[0, -1, :, 2] < 0).all()


def test_azimuth_grows_counter_clockwise_seen_from_above() -> None:
    camera = orbit_cameras(torch.tensor([90.0]), elevation_deg=0.0)
    torch.testing.assert_close(camera.camera_to_world[0, :3, 3], torch.tensor([0.0, 2.5, 0.0]), atol=1e-6, rtol=0)


def test_the_central_ray_hits_the_origin(cameras: Cameras) -> None:
    origins, directions = cameras.rays(5, 7)
    origin, direction = origins[:, 2, 3], directions[:, 2, 3]
    hit = origin + direction * cameras.distance[:, None]
    assert hit.norm(dim=-1).max() < 1e-5


def test_field_of_view_is_vertical(cameras: Cameras) -> None:
    _, directions = cameras.rays(2000, 1)
    angle = torch.arccos((directions[:, 0, 0] * directions[:, -1, 0]).sum(-1).clamp(-1, 1))
    torch.testing.assert_close(torch.rad2deg(angle), cameras.fov_y_deg, atol=0.1, rtol=0)


def test_random_cameras_stay_in_range_and_cover_all_sides() -> None:
    ranges = {"elevation_deg": (-5.0, 60.0), "distance": (2.0, 2.1), "fov_y_deg": (30.0, 31.0)}
    cameras = random_cameras(400, torch.Generator().manual_seed(1), **ranges)
    for name, (low, high) in ranges.items():
        values = getattr(cameras, name)
        assert values.min() >= low - 1e-4 and values.max() <= high + 1e-4
        assert values.max() - values.min() > 0.9 * (high - low)
    assert torch.histc(cameras.azimuth_deg, 8, 0, 360).min() >= 40
    # Uniform over the sphere: the sine of the elevation is uniform.
    middle = (math.sin(math.radians(-5)) + math.sin(math.radians(60))) / 2
    assert abs(torch.sin(torch.deg2rad(cameras.elevation_deg)).mean().item() - middle) < 0.05


def test_stratified_azimuths_share_out_the_circle() -> None:
    azimuth = random_cameras(4, torch.Generator().manual_seed(2)).azimuth_deg.sort().values
    gaps = torch.cat([azimuth, azimuth[:1] + 360]).diff()
    assert gaps.min() > 0 and gaps.max() < 180


@pytest.mark.parametrize(
    ("azimuth", "elevation", "word"),
    [(0, 0, "front"), (350, 15, "front"), (90, 0, "side"), (-90, 0, "side"), (180, 0, "back"), (10, 70, "overhead")],
)
def test_view_words(azimuth: float, elevation: float, word: str) -> None:
    assert view_word(azimuth, elevation) == word


def test_turntable_and_json_round_trip() -> None:
    cameras = turntable_cameras()
    assert len(cameras) == 36 and cameras.azimuth_deg[1] == 10
    again = Cameras.from_json(cameras.to_json())
    torch.testing.assert_close(again.camera_to_world, cameras.camera_to_world)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distance": 10**400}, "is no list of cameras"),
        ({"azimuth_deg": None}, "is no list of cameras"),
        ({"distance": float("nan")}, "distance nan is not from 0 to 1e\\+06"),
        ({"elevation_deg": 91}, "elevation_deg 91 is not from -90 to 90"),
        ({"fov_y_deg": float("inf")}, "fov_y_deg inf is not from 0 to 180"),
    ],
)
def test_json_that_holds_no_cameras_is_refused(change: dict[str, object], said: str) -> None:
    entry = turntable_cameras(1).to_json()[0]
    with pytest.raises(ArtifactError, match=f"cameras.json: {said}"):
        Cameras.from_json([entry | change])
    for nothing in ("cameras", 3, [[]], {"a": 1}, None):
        with pytest.raises(ArtifactError, match="is no list of cameras"):
            Cameras.from_json(nothing)
