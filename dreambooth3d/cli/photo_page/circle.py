"""A drawing of the subject from above, with where each photo was taken from and where the next ones are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dreambooth3d.photos.coverage import SEEN_DEG

CENTRE, RADIUS, RING = 160.0, 112.0, 58.0
DOT = 15.0
LANES = (RADIUS + 14, RADIUS - 16, RADIUS - 44)
"""Radii of the dots: those that would lie on one another are put further in."""
NEAR_DEG = (14.0, 20.0, 30.0)
"""Angle below which two dots of a lane touch."""


def circle(azimuths_deg: Sequence[float], next_deg: Sequence[float], label: str) -> str:
    """The SVG, of trusted numbers and an escaped label; the front is at the bottom, the subject's left on the right.

    Args:
        azimuths_deg: of each photo's camera, NaN where it is unknown; photos are numbered from 1.
        next_deg: where further ones would help.
        label: what it says to those who do not see it, as HTML.
    """
    known = [(number, angle) for number, angle in enumerate(azimuths_deg, start=1) if not math.isnan(angle)]
    parts = [f'<circle class="round" cx="{CENTRE:g}" cy="{CENTRE:g}" r="{RADIUS:g}"/>']
    parts += [_wedge(angle) for _, angle in known]
    parts += [
        f'<circle class="subject" cx="{CENTRE:g}" cy="{CENTRE:g}" r="26"/>',
        f'<text class="word" x="{CENTRE:g}" y="{CENTRE + 4:g}">subject</text>',
        f'<text class="word" x="{CENTRE:g}" y="{CENTRE + 44:g}">front</text>',
        *(_dot("next", "+", angle, LANES[0]) for angle in next_deg),
        *(_dot("taken", str(number), angle, lane) for (number, angle), lane in zip(known, _lanes(known), strict=True)),
    ]
    return f'<svg viewBox="0 0 320 320" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _at(angle_deg: float, radius: float) -> tuple[float, float]:
    turn = math.radians(angle_deg)
    return CENTRE + radius * math.sin(turn), CENTRE + radius * math.cos(turn)


def _wedge(angle_deg: float) -> str:
    corners = [_at(angle_deg + side * SEEN_DEG, radius) for radius in (RING, RADIUS) for side in (-1, 1)]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    inner, outer = f"A{RING:g} {RING:g} 0 0 0", f"A{RADIUS:g} {RADIUS:g} 0 0 1"
    path = f"M{x0:.1f} {y0:.1f}{inner} {x1:.1f} {y1:.1f}L{x3:.1f} {y3:.1f}{outer} {x2:.1f} {y2:.1f}Z"
    return f'<path class="seen" d="{path}"/>'


def _lanes(known: Sequence[tuple[int, float]]) -> list[float]:
    """The radius of each dot: the outermost lane in which it touches no earlier one."""
    taken: list[list[float]] = [[] for _ in LANES]
    chosen = []
    for _, angle in known:
        free = (
            lane
            for lane, near in enumerate(NEAR_DEG)
            if all(abs((angle - other + 180) % 360 - 180) >= near for other in taken[lane])
        )
        lane = next(free, len(LANES) - 1)
        taken[lane].append(angle)
        chosen.append(LANES[lane])
    return chosen


def _dot(kind: str, text: str, angle_deg: float, radius: float) -> str:
    x, y = _at(angle_deg, radius)
    return (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{DOT:g}"/>'
        f'<text class="{kind}" x="{x:.1f}" y="{y + 5:.1f}">{text}</text>'
    )
