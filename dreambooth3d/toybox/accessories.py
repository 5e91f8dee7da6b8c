"""What a subject can wear."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from dreambooth3d.toybox.solids import (
    ACCESSORY,
    FACING_SIDE,
    GRAY,
    YELLOW,
    Build,
    Solid,
    ball,
    box,
    cone,
    ring,
)


def hat(build: Build) -> list[Solid]:
    """A top hat."""
    (x, y, z), r = build.top.position, build.top.radius
    return [
        cone((x, y, z + 0.02), 1.6 * r, 1.6 * r, 0.035, ACCESSORY),
        cone((x, y, z + 0.04 + 0.65 * r), r, r, 0.65 * r, ACCESSORY),
    ]


def scarf(build: Build) -> list[Solid]:
    """A thick ring around the neck with one end hanging down in front."""
    neck = build.neck
    if neck is None:
        raise ValueError("scarf: this class has no neck. Choose another accessory.")
    (x, y, z), r = neck.position, neck.radius
    end = (x + r * cos(neck.tilt_deg * pi / 180) + 0.04, y + 0.35 * r, z - r * sin(neck.tilt_deg * pi / 180) - 0.14)
    return [
        ring((x, y, z), r, 0.085, ACCESSORY, (0.0, neck.tilt_deg, 0.0)),
        box(end, (0.045, 0.08, 0.17), ACCESSORY, (0.0, -8.0, 0.0)),
    ]


def bow(build: Build) -> list[Solid]:
    """A bow tie at the front."""
    (x, y, z), r = build.chest.position, build.chest.radius
    return [
        cone((x, y - r, z), 0.75 * r, 0.2 * r, 0.85 * r, ACCESSORY, (-90.0, 0.0, 0.0)),
        cone((x, y + r, z), 0.75 * r, 0.2 * r, 0.85 * r, ACCESSORY, (90.0, 0.0, 0.0)),
        ball((x + 0.02, y, z), 0.42 * r, ACCESSORY),
    ]


def flag(build: Build) -> list[Solid]:
    """A flag on a pole, set diagonally so that it shows from every side."""
    x, y, z = build.top.position
    turn = pi / 4
    return [
        cone((x, y, z + 0.17), 0.035, 0.035, 0.24, GRAY),
        box((x + 0.2 * cos(turn), y + 0.2 * sin(turn), z + 0.27), (0.22, 0.03, 0.14), ACCESSORY, (0.0, 0.0, 45.0)),
    ]


def flower(build: Build) -> list[Solid]:
    """A flower with a ring of petals, lying on the head and leaning to the front."""
    (x, y, z), r = build.top.position, max(build.top.radius, 0.13)
    petals = [
        ball((x + 0.95 * r * cos(angle), y + 0.95 * r * sin(angle), z + 0.03), (0.62 * r, 0.62 * r, 0.08), ACCESSORY)
        for angle in (pi / 5 + index * 2 * pi / 5 for index in range(5))
    ]
    return [*petals, ball((x, y, z + 0.06), (0.5 * r, 0.5 * r, 0.1), YELLOW)]


def crown(build: Build) -> list[Solid]:
    """A crown with five spikes; never seen in training."""
    (x, y, z), r = build.top.position, 1.15 * build.top.radius
    spikes = [
        cone((x + 0.85 * r * cos(angle), y + 0.85 * r * sin(angle), z + 0.2), 0.42 * r, 0.03, 0.12, ACCESSORY)
        for angle in (index * 2 * pi / 5 for index in range(5))
    ]
    return [cone((x, y, z + 0.05), r, 1.15 * r, 0.09, ACCESSORY), *spikes]


def propeller(build: Build) -> list[Solid]:
    """Two crossed blades on a stick; never seen in training."""
    x, y, z = build.top.position
    blade = (0.34, 0.075, 0.025)
    return [
        cone((x, y, z + 0.06), 0.04, 0.04, 0.12, GRAY),
        box((x, y, z + 0.19), blade, ACCESSORY, (0.0, 0.0, 45.0)),
        box((x, y, z + 0.19), blade, ACCESSORY, (0.0, 0.0, -45.0)),
        ball((x, y, z + 0.21), 0.075, ACCESSORY, FACING_SIDE),
    ]


ACCESSORIES: dict[str, Callable[[Build], list[Solid]]] = {
    "hat": hat,
    "scarf": scarf,
    "bow": bow,
    "flag": flag,
    "flower": flower,
    "crown": crown,
    "propeller": propeller,
}
