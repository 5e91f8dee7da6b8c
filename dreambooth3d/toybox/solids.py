"""Building blocks of the shape programs: one row of numbers per primitive, in the class's own units.

Orientation: +x is the subject's front, +y its left, +z up. Angles are degrees, applied about x, then y, then z.
"""

from __future__ import annotations

from dataclasses import dataclass

from dreambooth3d.toybox.shapes import BOX, CONE, ELLIPSOID, PRISM, TORUS

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.12),
    "green": (0.13, 0.62, 0.20),
    "blue": (0.13, 0.27, 0.88),
    "yellow": (0.98, 0.84, 0.12),
    "orange": (0.98, 0.48, 0.06),
    "purple": (0.52, 0.16, 0.70),
    "white": (0.96, 0.96, 0.96),
    "black": (0.10, 0.10, 0.12),
    "brown": (0.44, 0.26, 0.13),
    "pink": (0.98, 0.58, 0.74),
}
RED, GREEN, BLUE, YELLOW, ORANGE, PURPLE, WHITE, BLACK, BROWN, PINK = range(len(COLOURS))
GRAY, SKY, GOLD = (len(COLOURS) + index for index in range(3))
PALETTE = (*COLOURS.values(), (0.62, 0.64, 0.67), (0.62, 0.85, 0.96), (0.85, 0.65, 0.20))
DARK = frozenset({BLUE, PURPLE, BLACK, BROWN, GREEN, RED})

# Paints that depend on the recipe. BODY is the main colour with the pattern, MAIN the main colour without it;
# the two inks contrast with the main and the second colour.
BODY, MAIN, SECOND, ACCESSORY, INK, INK_ON_SECOND = range(-1, -7, -1)

Vector = tuple[float, float, float]
Solid = tuple[float, ...]
UPRIGHT: Vector = (0.0, 0.0, 0.0)
FACING_FRONT: Vector = (0.0, 90.0, 0.0)
FACING_SIDE: Vector = (90.0, 0.0, 0.0)


def ball(centre: Vector, radii: Vector | float, paint: int, tilt: Vector = UPRIGHT) -> Solid:
    """An ellipsoid."""
    radii = radii if isinstance(radii, tuple) else (radii, radii, radii)
    return (ELLIPSOID, *centre, *radii, 0.0, *tilt, paint)


def box(centre: Vector, half: Vector, paint: int, tilt: Vector = UPRIGHT, rounding: float = 0.03) -> Solid:
    """A box with rounded edges; the rounding shrinks where the box is thin."""
    return (BOX, *centre, *half, min(rounding, 0.8 * min(half)), *tilt, paint)


def cone(
    centre: Vector, bottom: float, top: float, half: float, paint: int, tilt: Vector = UPRIGHT, rounding: float = 0.02
) -> Solid:
    """A capped cone around its local z; equal radii make a cylinder."""
    return (CONE, *centre, bottom, top, half, min(rounding, 0.8 * min(bottom, top, half)), *tilt, paint)


def ring(centre: Vector, radius: float, tube: float, paint: int, tilt: Vector = UPRIGHT) -> Solid:
    """A torus around its local z."""
    return (TORUS, *centre, radius, tube, 0.0, 0.0, *tilt, paint)


def roof(centre: Vector, half: Vector, paint: int, tilt: Vector = UPRIGHT) -> Solid:
    """A triangular prism with its ridge on top, along local y."""
    return (PRISM, *centre, *half, 0.0, *tilt, paint)


def badge(x: float, y: float, z: float, radius: float, paint: int, depth: float = 0.05) -> Solid:
    """A round disc that faces the front or, at negative x, the back."""
    return cone((x, y, z), radius, radius, depth, paint, FACING_FRONT, rounding=0.01)


@dataclass(frozen=True)
class Place:
    """Where an accessory sits: a position, the radius of what it sits on, and a tilt in degrees about y."""

    position: Vector
    radius: float
    tilt_deg: float = 0.0


@dataclass(frozen=True)
class Build:
    """The result of a shape program.

    Attributes:
        solids: the primitives.
        top: where hats and flags stand.
        neck: where scarves go around; None where none fits.
        chest: where a bow sits, at the front.
        wave: direction in which the pattern runs, for example (0, 0, 1) for horizontal stripes.
    """

    solids: list[Solid]
    top: Place
    neck: Place | None
    chest: Place
    wave: Vector = (0.0, 0.0, 1.0)
