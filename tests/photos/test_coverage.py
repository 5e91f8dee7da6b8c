"""From which sides photos show a subject, and where the next one belongs: by trying every direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dreambooth3d.photos.coverage import SEEN_DEG, next_photos, place_name, seen_share
from dreambooth3d.toybox.subjects import SHIPPED_SUBJECTS, photo_azimuths_deg

DIRECTIONS = np.arange(0, 360, 0.1)


def off(directions: NDArray[np.float64], taken: list[float]) -> NDArray[np.float64]:
    """Degrees from each direction to the nearest camera that is known."""
    known = np.array([angle for angle in taken if not math.isnan(angle)])
    return np.abs((directions[:, None] - known + 180) % 360 - 180).min(axis=1)


@pytest.mark.parametrize("name", SHIPPED_SUBJECTS)
def test_the_next_photo_is_as_far_as_can_be_from_all_others(name: str) -> None:
    """By trying every tenth of a degree."""
    taken = [*photo_azimuths_deg(name), math.nan]
    assert seen_share(taken) == pytest.approx((off(DIRECTIONS, taken) < SEEN_DEG).mean(), abs=2e-3)
    for wanted in next_photos(taken):
        away = off(DIRECTIONS, taken)
        assert wanted.gap_deg == pytest.approx(2 * away.max(), abs=0.2)
        assert off(np.array([wanted.azimuth_deg]), taken)[0] >= away.max() - 0.1
        assert wanted.gap_deg > 2 * SEEN_DEG
        taken = [wanted.azimuth_deg, *taken]


def test_coverage_of_one_photo_of_none_and_of_all_sides() -> None:
    assert next_photos([math.nan]) == [] and seen_share([math.nan, math.nan]) == 0
    first, second, third = next_photos([10.0])
    assert (first.azimuth_deg, first.neighbours) == (190, (0, 0))
    assert {second.azimuth_deg, third.azimuth_deg} == {100, 280}
    assert next_photos([0.0, 90.0, 180.0, -90.0]) == [] and seen_share([0.0, 90.0, 180.0, -90.0]) == 1
    assert place_name(-156.0) == "behind, to its right" and place_name(90.0) == "its left side"
