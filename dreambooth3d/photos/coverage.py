"""From which sides photos show a subject, and from where the next ones tell the most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SEEN_DEG = 45.0
"""To either side of a camera, up to which a photo shows the subject's side well enough to be learned from."""
MOST_NEXT = 3
_PLACES = (
    "the front", "the front, to its left", "its left side", "behind, to its left",
    "behind", "behind, to its right", "its right side", "the front, to its right",
)  # fmt: skip


@dataclass(frozen=True)
class NextPhoto:
    """Where a further photo would tell the most: in the middle of the widest gap.

    Attributes:
        azimuth_deg: where the camera is to be, in [0, 360).
        gap_deg: how far apart its neighbours are.
        neighbours: places in the given azimuths of the photos to either side; None of one that is suggested itself.
    """

    azimuth_deg: float
    gap_deg: float
    neighbours: tuple[int | None, int | None]


def seen_share(azimuths_deg: Sequence[float]) -> float:
    """Share of all directions around the subject that lie within `SEEN_DEG` of a camera; unknown ones are NaN."""
    gaps = [gap for _, gap, _, _ in _gaps(_known(azimuths_deg))]
    if not gaps:
        return 0.0
    return sum(min(gap, 2 * SEEN_DEG) for gap in gaps) / 360


def next_photos(azimuths_deg: Sequence[float]) -> list[NextPhoto]:
    """Where to photograph next, at most `MOST_NEXT` places: each amid the widest gap that is left, the widest first.

    None where no gap leaves a side unseen, or no camera is known.

    Args:
        azimuths_deg: of each photo's camera, NaN where it is unknown.
    """
    places: list[tuple[float, int | None]] = [*_known(azimuths_deg)]
    found: list[NextPhoto] = []
    while len(found) < MOST_NEXT and places:
        start, gap, before, after = max(_gaps(places), key=lambda each: each[1])
        if gap <= 2 * SEEN_DEG:
            break
        middle = (start + gap / 2) % 360
        found.append(NextPhoto(middle, gap, (before, after)))
        places.append((middle, None))
    return found


def place_name(azimuth_deg: float) -> str:
    """An azimuth in words, such as `behind, to its left`: the subject's own left, which is at 90 degrees."""
    return _PLACES[round(azimuth_deg / 45) % 8]


def _known(azimuths_deg: Sequence[float]) -> list[tuple[float, int | None]]:
    return [(float(angle) % 360, index) for index, angle in enumerate(azimuths_deg) if not math.isnan(angle)]


def _gaps(places: Sequence[tuple[float, int | None]]) -> list[tuple[float, float, int | None, int | None]]:
    """Start and width of each gap between neighbours in degrees, and who they are."""
    around = sorted(places, key=lambda place: place[0])
    following = [*around[1:], (around[0][0] + 360, around[0][1])] if around else []
    return [
        (start, end - start, before, after) for (start, before), (end, after) in zip(around, following, strict=True)
    ]
