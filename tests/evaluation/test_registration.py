"""From where does an asset look like a photo? Photos of a known subject by ray casting, from known cameras."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.evaluation import registration
from dreambooth3d.evaluation.registration import CentredPhoto, centred_photos, register, render_placed
from tests.evaluation.blobs import Blobs, seen_from

SIZE = 64
FOV_DEG = 40.0


def axis_rotation(axis: int, angle_deg: float) -> Tensor:
    """(3, 3) rotation about one of x, y, z."""
    generator = torch.zeros(3, 3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    generator[second, first], generator[first, second] = 1.0, -1.0
    return torch.linalg.matrix_exp(generator * math.radians(angle_deg))


def photographed(azimuth: float, elevation: float, roll: float, off: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Image and mask from a camera at distance 3.2 that is rolled, and pans and tilts by some degrees."""
    # An upright camera at azimuth and elevation 0 looks along -x: right is y, up is z, backward is x.
    level = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    upright = axis_rotation(2, azimuth) @ axis_rotation(1, -elevation) @ level
    rotation = upright @ axis_rotation(1, off[0]) @ axis_rotation(0, off[1]) @ axis_rotation(2, roll)
    return seen_from(rotation, 3.2 * upright[:, 2], FOV_DEG, 160)


def centred(image: Tensor, mask: Tensor, frame: Tensor | None = None, cut: bool = False) -> CentredPhoto:
    frame = torch.ones_like(mask) if frame is None else frame
    return centred_photos(image[None], mask[None], frame[None], [cut], torch.tensor([FOV_DEG]), SIZE)[0]


def overlap(first: Tensor, second: Tensor) -> float:
    first, second = first > 0.5, second > 0.5
    return ((first & second).sum() / (first | second).sum()).item()


@pytest.mark.parametrize(
    ("azimuth", "elevation", "roll", "off"),
    [
        (0.0, 10.0, 0.0, (0.0, 0.0)),
        (137.0, 33.0, 14.0, (4.0, -3.0)),
        (-64.0, -8.0, -19.0, (-3.0, 5.0)),
        (-161.0, 48.0, 8.0, (5.0, 4.0)),
    ],
)
def test_the_camera_of_a_photo_is_recovered(azimuth: float, elevation: float, roll: float, off) -> None:
    field, photo = Blobs(), centred(*photographed(azimuth, elevation, roll, off))
    found = register(field, photo)
    cameras = found.placed.cameras
    assert abs(wrap_degrees(cameras.azimuth_deg - azimuth).item()) < 4
    assert abs(cameras.elevation_deg.item() - elevation) < 4
    assert cameras.distance.item() == pytest.approx(3.2, rel=0.05)
    assert overlap(render_placed(field, found.placed, SIZE, 64).opacity[0], photo.mask) > 0.95


def test_the_roll_is_recovered_where_the_photo_is_in_the_middle() -> None:
    """Off the middle, a camera's roll depends on the order in which it pans and tilts."""
    for roll in (-17.0, 11.0):
        found = register(Blobs(), centred(*photographed(25.0, 15.0, roll, (0.0, 0.0))))
        assert found.placed.roll_deg.item() == pytest.approx(roll, abs=3)


def test_what_the_frame_cuts_away_is_unknown() -> None:
    """Half a subject is registered as a half, not as a small whole one."""
    image, mask = photographed(25.0, 15.0, 0.0, (0.0, 0.0))
    frame = torch.ones_like(mask)
    frame[:, 80:] = 0
    photo = centred(image * frame, mask * frame, frame, cut=True)
    found = register(Blobs(), photo)
    cameras = found.placed.cameras
    assert abs(wrap_degrees(cameras.azimuth_deg - 25.0).item()) < 10
    assert cameras.distance.item() == pytest.approx(3.2, rel=0.12)
    assert photo.known.min() == 0 and photo.known[photo.mask > 0.5].mean() > 0.95


def test_registration_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "ROUNDS", ((24, 4, 4), (32, 1, 3)))
    photo = centred(*photographed(80.0, 20.0, 5.0, (2.0, 1.0)))
    first, second = register(Blobs(), photo), register(Blobs(), photo)
    assert first.error == second.error
    assert first.placed.cameras.azimuth_deg.item() == second.placed.cameras.azimuth_deg.item()
