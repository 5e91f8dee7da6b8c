"""The shape programs: one function per class, with random proportions.

Every class has features that tell its front, sides, back and top apart in a picture of 64 pixels: a face, badge or
opening in front, a tail, handle or dark patch at the back, a silhouette that changes from the side.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from dreambooth3d.toybox.solids import (
    BLACK,
    BODY,
    BROWN,
    FACING_FRONT,
    FACING_SIDE,
    GOLD,
    GRAY,
    INK,
    INK_ON_SECOND,
    MAIN,
    ORANGE,
    PINK,
    RED,
    SECOND,
    SKY,
    WHITE,
    YELLOW,
    Build,
    Place,
    Solid,
    badge,
    ball,
    box,
    cone,
    ring,
    roof,
)


def _vary(random: Random, share: float = 0.13) -> float:
    """A factor around 1."""
    return 1 + random.uniform(-share, share)


def _pair(solid: Callable[[float], Solid]) -> list[Solid]:
    """The same solid on the left and, mirrored, on the right; `solid` gets +1 and -1."""
    return [solid(1.0), solid(-1.0)]


def dog(random: Random) -> Build:
    """Stands on four legs; long snout, hanging ears, tail up."""
    long, wide, leg = _vary(random), _vary(random), _vary(random)
    head = 0.36 * long
    solids = [
        ball((-0.06, 0, -0.06), (0.46 * long, 0.27 * wide, 0.25), BODY),
        ball((head, 0, 0.3), (0.25, 0.27, 0.25), MAIN),
        ball((head + 0.25, 0, 0.22), (0.19 * long, 0.15, 0.12), SECOND),
        ball((head + 0.41 * long, 0, 0.27), 0.075, INK_ON_SECOND),
        cone((-0.5 * long, 0, 0.16), 0.09, 0.06, 0.22, SECOND, (0.0, -30.0, 0.0), 0.05),
    ]
    solids += _pair(lambda s: ball((head + 0.2, s * 0.12, 0.4), 0.06, INK))
    solids += _pair(lambda s: ball((head - 0.05, s * 0.29, 0.24), (0.12, 0.07, 0.23), SECOND, (s * 14, 0, 0)))
    for x in (-0.3 * long, 0.24 * long):
        solids += _pair(lambda s, x=x: cone((x, s * 0.15 * wide, -0.36), 0.1, 0.1, 0.2 * leg, MAIN, rounding=0.05))
    return Build(
        solids,
        Place((head - 0.02, 0, 0.52), 0.15),
        Place((head - 0.1, 0, 0.08), 0.21, 40.0),
        Place((head + 0.14, 0, -0.0), 0.14),
        wave=(1, 0, 0),
    )


def cat(random: Random) -> Build:
    """Sits upright; pointed ears, pale chest, tail up behind its back."""
    tall, wide, tail = _vary(random), _vary(random), _vary(random)
    head = 0.36 * tall
    solids = [
        ball((-0.06, 0, -0.22), (0.32 * wide, 0.32 * wide, 0.44 * tall), BODY),
        ball((0.17 * wide, 0, -0.2), (0.16, 0.17 * wide, 0.27), SECOND),
        ball((0.1, 0, head), (0.27, 0.33, 0.26), MAIN),
        ball((0.33, 0, head - 0.07), (0.1, 0.14, 0.09), WHITE),
        ball((0.42, 0, head - 0.02), 0.05, PINK),
        cone((-0.42 * wide, 0, -0.3), 0.09, 0.075, 0.34 * tail, SECOND, (0.0, -12.0, 0.0), 0.06),
        ball((-0.38, 0, -0.58), (0.2, 0.1, 0.09), SECOND),
    ]
    solids += _pair(lambda s: cone((0.08, s * 0.2, head + 0.27), 0.14, 0.02, 0.15, SECOND, (-s * 16, 0, 0)))
    solids += _pair(lambda s: ball((0.31, s * 0.14, head + 0.07), (0.06, 0.065, 0.075), INK))
    solids += _pair(lambda s: ball((0.22, s * 0.14, -0.6), (0.16, 0.11, 0.09), MAIN))
    top = Place((0.06, 0, head + 0.24), 0.14)
    return Build(solids, top, Place((0.04, 0, head - 0.22), 0.25), Place((0.34, 0, head - 0.27), 0.15))


def clock(random: Random) -> Build:
    """An alarm clock with two bells; hands in front, battery box at the back."""
    radius, deep = 0.52 * _vary(random), 0.17 * _vary(random, 0.25)
    hand = random.uniform(-70, 70)
    solids = [
        cone((0, 0, 0), radius, radius, deep, BODY, FACING_FRONT, 0.05),
        badge(deep, 0, 0, 0.8 * radius, WHITE, 0.03),
        box((deep + 0.04, 0, 0.16), (0.02, 0.045, 0.2), BLACK),
        box((deep + 0.04, -0.1, -0.03), (0.02, 0.15, 0.045), BLACK, (hand / 3, 0, 0)),
        badge(deep + 0.04, 0, 0, 0.075, RED, 0.03),
        box((-deep - 0.03, 0, -0.08), (0.06, 0.22, 0.17), INK),
        box((-deep - 0.08, 0, -0.08), (0.06, 0.06, 0.06), GOLD),
        cone((0, 0, radius + 0.1), 0.04, 0.04, 0.12, GRAY),
    ]
    solids += _pair(lambda s: ball((0, s * 0.33, radius + 0.03), (0.17, 0.2, 0.14), SECOND, (-s * 32, 0, 0)))
    solids += _pair(lambda s: cone((0, s * 0.32, -radius - 0.02), 0.09, 0.09, 0.13, SECOND, (s * 25, 0, 0)))
    top = Place((0, 0, radius + 0.17), 0.17)
    return Build(solids, top, None, Place((deep + 0.06, 0, -radius + 0.08), 0.17))


def can(random: Random) -> Build:
    """A drink can; round label in front, barcode at the back, tab on top."""
    tall, wide = 0.66 * _vary(random, 0.1), 0.4 * _vary(random)
    bars = [box((-wide, y, -0.02), (0.03, 0.045, 0.3), BLACK, rounding=0.01) for y in (-0.13, 0, 0.13)]
    solids = [
        cone((0, 0, 0), wide, wide, tall, BODY, rounding=0.05),
        cone((0, 0, tall), 0.84 * wide, 0.84 * wide, 0.05, GRAY),
        cone((0, 0, -tall), 0.84 * wide, 0.84 * wide, 0.05, GRAY),
        box((0.1, 0, tall + 0.06), (0.17, 0.08, 0.025), BLACK),
        badge(wide - 0.05, 0, 0.03, 0.29, SECOND, 0.1),
        badge(wide + 0.04, 0, 0.03, 0.13, INK_ON_SECOND, 0.03),
        box((-wide + 0.02, 0, -0.02), (0.03, 0.24, 0.36), WHITE, rounding=0.01),
        *bars,
    ]
    top = Place((0, 0, tall + 0.05), 0.22)
    return Build(solids, top, Place((0, 0, 0.48 * tall), wide + 0.03), Place((wide + 0.03, 0, -0.35), 0.15))


def duck(random: Random) -> Build:
    """Swims; orange beak, coloured wings, pointed tail."""
    long, wide, tall = _vary(random), _vary(random), _vary(random)
    head = 0.34 * tall
    solids = [
        ball((-0.08, 0, -0.18), (0.5 * long, 0.36 * wide, 0.32), BODY),
        ball((0.26, 0, head), (0.26, 0.25, 0.25), MAIN),
        ball((0.22, 0, 0.08), (0.19, 0.19, 0.2), MAIN),
        ball((0.54, 0, head - 0.06), (0.17, 0.17, 0.06), ORANGE),
        cone((-0.58 * long, 0, 0.02), 0.17, 0.03, 0.16, SECOND, (0.0, -50.0, 0.0)),
    ]
    solids += _pair(lambda s: ball((0.43, s * 0.14, head + 0.09), 0.06, INK))
    solids += _pair(lambda s: ball((-0.12, s * 0.34 * wide, -0.12), (0.3 * long, 0.09, 0.18), SECOND, (0, 12, 0)))
    top = Place((0.24, 0, head + 0.22), 0.16)
    return Build(solids, top, Place((0.24, 0, 0.1), 0.22), Place((0.45, 0, 0.05), 0.15), wave=(1, 0, 0))


def vase(random: Random) -> Build:
    """Bulbous with a flaring neck; emblem in front, dark seam at the back."""
    wide, neck, tall = 0.46 * _vary(random), 0.2 * _vary(random), _vary(random)
    solids = [
        ball((0, 0, -0.18), (wide, wide, 0.46 * tall), BODY),
        cone((0, 0, 0.32 * tall), neck, 0.8 * neck, 0.16, SECOND),
        cone((0, 0, 0.32 * tall + 0.24), 0.85 * neck, 1.75 * neck, 0.13, SECOND),
        cone((0, 0, 0.32 * tall + 0.365), 1.35 * neck, 1.35 * neck, 0.012, BLACK),
        cone((0, 0, -0.6 * tall), 0.32, 0.24, 0.07, SECOND),
        badge(wide - 0.05, 0, -0.16, 0.24, SECOND, 0.07),
        badge(wide + 0.02, 0, -0.16, 0.11, INK_ON_SECOND, 0.03),
        ball((-wide + 0.06, 0, -0.16), (0.1, 0.09, 0.34 * tall), INK),
    ]
    top = Place((0, 0, 0.32 * tall + 0.37), 0.2)
    return Build(solids, top, Place((0, 0, 0.27 * tall), neck + 0.05), Place((wide - 0.12, 0, 0.17), 0.16))


def teapot(random: Random) -> Build:
    """Spout in front, handle at the back, lid with a knob."""
    wide, tall, spout = 0.45 * _vary(random, 0.08), 0.38 * _vary(random), _vary(random)
    solids = [
        ball((0, 0, -0.1), (wide, wide, tall), BODY),
        cone((0, 0, -0.1 - 0.9 * tall), 0.28, 0.28, 0.06, SECOND),
        cone((wide + 0.1, 0, 0.0), 0.14, 0.075, 0.26 * spout, SECOND, (0.0, 48.0, 0.0)),
        ball((wide + 0.1 + 0.2 * spout, 0, 0.18 * spout), (0.05, 0.075, 0.075), BLACK, (0.0, -40.0, 0.0)),
        ring((-wide - 0.06, 0, -0.05), 0.23, 0.065, SECOND, FACING_SIDE),
        ball((0, 0, tall - 0.16), (0.27, 0.27, 0.12), SECOND),
        ball((0, 0, tall), 0.085, INK),
    ]
    top = Place((0, 0, tall + 0.05), 0.15)
    neck = Place((0, 0, tall - 0.22), 0.3)
    return Build(solids, top, neck, Place((wide - 0.06, 0, tall - 0.22), 0.15))


def mug(random: Random) -> Build:
    """A cup with a big face-like badge in front and a handle at the back."""
    wide, tall = 0.42 * _vary(random), 0.46 * _vary(random)
    solids = [
        cone((0, 0, 0), wide, wide, tall, BODY, rounding=0.04),
        cone((0, 0, tall), wide, wide, 0.05, SECOND),
        cone((0, 0, tall + 0.045), 0.82 * wide, 0.82 * wide, 0.02, BLACK),
        ring((-wide - 0.04, 0, 0), 0.25, 0.08, SECOND, FACING_SIDE),
        badge(wide - 0.04, 0, -0.02, 0.28, WHITE, 0.07),
        ball((wide + 0.03, 0, -0.12), (0.03, 0.13, 0.045), RED),
    ]
    solids += _pair(lambda s: ball((wide + 0.03, s * 0.1, 0.06), (0.03, 0.05, 0.07), BLACK))
    top = Place((0, 0, tall + 0.06), 0.22)
    return Build(solids, top, Place((0, 0, 0.72 * tall), wide + 0.01), Place((wide + 0.03, 0, -0.8 * tall), 0.16))


def chair(random: Random) -> Build:
    """Cushioned seat in front of a tall back rest, with two dark boards behind it."""
    wide, tall, deep = 0.38 * _vary(random), 0.42 * _vary(random), 0.36 * _vary(random)
    solids = [
        box((0, 0, -0.1), (deep, wide, 0.07), MAIN),
        box((0.03, 0, 0.0), (0.85 * deep, 0.85 * wide, 0.06), SECOND, rounding=0.05),
        box((-deep + 0.04, 0, tall), (0.06, wide, tall + 0.04), BODY, rounding=0.04),
        box((-deep - 0.04, 0, tall + 0.2), (0.03, 0.75 * wide, 0.07), INK),
        box((-deep - 0.04, 0, tall - 0.14), (0.03, 0.75 * wide, 0.07), INK),
    ]
    for x in (-0.8 * deep, 0.8 * deep):
        solids += _pair(lambda s, x=x: box((x, s * 0.85 * wide, -0.42), (0.06, 0.06, 0.28), BROWN))
    top = Place((-deep + 0.04, 0, 2 * tall + 0.04), 0.14)
    return Build(solids, top, None, Place((-deep + 0.14, 0, 1.5 * tall), 0.17))


def car(random: Random) -> Build:
    """Yellow headlights in front, red lights and a spare wheel at the back."""
    long, wide, cabin = 0.66 * _vary(random, 0.1), 0.36 * _vary(random), 0.2 * _vary(random)
    solids = [
        box((0, 0, -0.1), (long, wide, 0.18), BODY, rounding=0.08),
        box((-0.1, 0, 0.08 + cabin), (0.38, 0.85 * wide, cabin), SECOND, rounding=0.07),
        box((0.27, 0, 0.08 + cabin), (0.03, 0.65 * wide, 0.65 * cabin), SKY),
        box((-0.1, 0, 0.1 + cabin), (0.25, 0.87 * wide, 0.55 * cabin), SKY),
        badge(-long - 0.02, 0, -0.02, 0.17, BLACK, 0.07),
        box((long, 0, -0.22), (0.05, 0.8 * wide, 0.06), GRAY),
    ]
    solids += _pair(lambda s: badge(long - 0.02, s * 0.62 * wide, -0.02, 0.1, YELLOW, 0.06))
    solids += _pair(lambda s: box((-long, s * 0.76 * wide, -0.02), (0.04, 0.08, 0.09), RED))
    for x in (-0.58 * long, 0.58 * long):
        solids += _pair(lambda s, x=x: cone((x, s * wide, -0.24), 0.18, 0.18, 0.07, BLACK, FACING_SIDE, rounding=0.03))
    top = Place((-0.1, 0, 0.08 + 2 * cabin), 0.2)
    return Build(solids, top, None, Place((long - 0.14, 0, 0.12), 0.15), wave=(1, 0, 0))


def house(random: Random) -> Build:
    """Door and windows in front, one wide dark garage at the back, gable roof."""
    wide, deep, tall = 0.44 * _vary(random), 0.42 * _vary(random), 0.36 * _vary(random)
    eaves = tall - 0.2
    solids = [
        box((0, 0, -0.2), (deep, wide, tall), BODY),
        roof((0, 0, eaves + 0.22), (deep + 0.1, wide + 0.1, 0.25), SECOND),
        box((deep, 0, -0.2 - tall + 0.24), (0.035, 0.12, 0.24), BROWN),
        box((-deep, 0, -0.2 - tall + 0.2), (0.035, 0.3, 0.2), BLACK),
        box((-0.24 * deep, 0.6 * wide, eaves + 0.4), (0.09, 0.09, 0.2), RED),
    ]
    solids += _pair(lambda s: box((deep, s * 0.29, -0.06), (0.035, 0.1, 0.11), YELLOW))
    solids += _pair(lambda s: cone((0, s * wide, -0.14), 0.15, 0.15, 0.035, SKY, FACING_SIDE))
    top = Place((0, -0.08, eaves + 0.45), 0.17)
    return Build(solids, top, None, Place((deep + 0.05, 0, eaves - 0.03), 0.15))


def snowman(random: Random) -> Build:
    """Three balls; carrot nose and buttons in front, rucksack at the back."""
    low, middle, head = 0.42 * _vary(random), 0.31 * _vary(random), 0.24 * _vary(random, 0.08)
    centre = -0.45 + 0.8 * low + 0.75 * middle
    face = centre + 0.75 * middle + 0.85 * head
    solids = [
        ball((0, 0, -0.45), (low, low, 0.95 * low), BODY),
        ball((0, 0, centre), middle, SECOND),
        ball((0, 0, face), head, MAIN),
        cone((head + 0.12, 0, face - 0.02), 0.08, 0.02, 0.16, ORANGE, FACING_FRONT),
        ball((middle - 0.01, 0, centre + 0.09), 0.06, INK_ON_SECOND),
        ball((middle - 0.02, 0, centre - 0.1), 0.06, INK_ON_SECOND),
        box((-middle - 0.05, 0, centre), (0.12, 0.2, 0.22), BROWN, rounding=0.06),
    ]
    solids += _pair(lambda s: ball((0.86 * head, s * 0.1, face + 0.07), 0.055, INK))
    solids += _pair(lambda s: cone((0, s * (middle + 0.13), centre + 0.08), 0.045, 0.045, 0.2, BROWN, (s * -60, 0, 0)))
    top = Place((0, 0, face + 0.88 * head), 0.15)
    neck = Place((0, 0, centre + 0.85 * middle), 0.19)
    return Build(solids, top, neck, Place((0.2, 0, centre + 0.8 * middle), 0.14))


def robot(random: Random) -> Build:
    """Box body; eyes and a panel in front, a striped battery at the back, an antenna."""
    wide, tall, head = 0.33 * _vary(random), 0.3 * _vary(random), 0.2 * _vary(random)
    face = tall - 0.05 + head
    solids = [
        box((0, 0, -0.1), (0.23, wide, tall), BODY, rounding=0.05),
        box((0, 0, face), (0.2, 0.25, head), SECOND, rounding=0.05),
        box((0.19, 0, face + 0.03), (0.035, 0.2, 0.08), BLACK),
        box((0.22, 0, -0.08), (0.04, 0.19, 0.14), WHITE),
        badge(0.26, 0.07, -0.08, 0.06, RED, 0.03),
        box((-0.28, 0, -0.06), (0.08, 0.22, 0.2), GRAY),
        box((-0.36, 0, -0.06), (0.03, 0.07, 0.16), BLACK),
        cone((0, 0, face + head + 0.07), 0.03, 0.03, 0.08, GRAY),
        ball((0, 0, face + head + 0.17), 0.075, RED),
    ]
    solids += _pair(lambda s: badge(0.23, s * 0.1, face + 0.03, 0.065, YELLOW, 0.03))
    solids += _pair(lambda s: box((0, s * (wide + 0.1), -0.1), (0.1, 0.09, 0.27), SECOND, rounding=0.06))
    solids += _pair(lambda s: box((0.03, s * 0.16, -0.1 - tall - 0.13), (0.15, 0.12, 0.16), MAIN, rounding=0.05))
    top = Place((0, 0, face + head), 0.17)
    return Build(solids, top, Place((0, 0, tall - 0.07), 0.27), Place((0.27, 0, tall - 0.18), 0.15))


def boat(random: Random) -> Build:
    """Pointed bow, cabin with windows in front, funnel, outboard motor at the back."""
    long, wide, cabin = 0.44 * _vary(random), 0.33 * _vary(random), 0.2 * _vary(random)
    solids = [
        box((-0.16, 0, -0.28), (long, wide, 0.2), BODY, rounding=0.05),
        roof((long - 0.17 + 0.2, 0, -0.28), (wide - 0.03, 0.195, 0.24), BODY, (90.0, 0.0, 90.0)),
        box((-0.12, 0, -0.05), (long * 0.8, 0.75 * wide, 0.04), BROWN),
        box((-0.06, 0, 0.1), (0.25, 0.7 * wide, cabin), SECOND, rounding=0.04),
        cone((-0.12, 0, 0.1 + cabin + 0.16), 0.12, 0.12, 0.19, RED),
        cone((-0.12, 0, 0.1 + cabin + 0.35), 0.12, 0.12, 0.06, BLACK),
        box((-0.16 - long - 0.06, 0, -0.2), (0.09, 0.14, 0.24), BLACK, rounding=0.05),
    ]
    solids += _pair(lambda s: badge(0.18, s * 0.11, 0.16, 0.08, SKY, 0.03))
    solids += _pair(lambda s: cone((-0.06, s * 0.7 * wide, 0.16), 0.09, 0.09, 0.03, SKY, FACING_SIDE))
    top = Place((0.06, 0, 0.1 + cabin), 0.13)
    return Build(solids, top, None, Place((0.22, 0, -0.0), 0.15), wave=(1, 0, 0))


def lamp(random: Random) -> Build:
    """A desk lamp: the shade opens to the front with a glowing bulb; pole behind."""
    shade, tall, base = 0.4 * _vary(random), _vary(random), 0.36 * _vary(random)
    solids = [
        cone((-0.08, 0, -0.68), base, 0.8 * base, 0.08, SECOND),
        badge(base - 0.14, 0, -0.62, 0.09, RED, 0.06),
        cone((-0.2, 0, -0.25 * tall), 0.06, 0.06, 0.42 * tall, INK, (0.0, -10.0, 0.0)),
        cone((0.05, 0, 0.26 * tall), 0.14, shade, 0.27, BODY, (0.0, 115.0, 0.0)),
        cone((0.27, 0, 0.16 * tall), 0.86 * shade, 0.86 * shade, 0.05, YELLOW, (0.0, 115.0, 0.0)),
        ball((0.33, 0, 0.13 * tall), 0.17, WHITE),
        ball((-0.25, 0, 0.4 * tall), (0.14, 0.15, 0.15), SECOND),
    ]
    top = Place((0.0, 0, 0.26 * tall + 0.24), 0.16)
    return Build(solids, top, Place((-0.18, 0, -0.42), 0.16), Place((0.0, 0, -0.42), 0.15), wave=(0, 0, 1))


def rocket(random: Random) -> Build:
    """Pointed nose and fins; two windows in front, a dark hatch at the back."""
    wide, tall, fin = 0.3 * _vary(random), 0.4 * _vary(random, 0.08), 0.17 * _vary(random)
    fins = [
        box((x * (wide + 0.6 * fin), y * (wide + 0.6 * fin), -tall - 0.06), half, SECOND)
        for x, y, half in (
            (-1, 0, (fin, 0.05, 0.2)),
            (0, 1, (0.05, fin, 0.2)),
            (0, -1, (0.05, fin, 0.2)),
        )
    ]
    solids = [
        cone((0, 0, -0.05), wide, wide, tall, BODY, rounding=0.03),
        cone((0, 0, tall + 0.15), wide, 0.03, 0.22, SECOND),
        cone((0, 0, -tall - 0.14), 0.26, 0.18, 0.08, BLACK),
        badge(wide - 0.03, 0, 0.13, 0.17, GRAY, 0.07),
        badge(wide, 0, 0.13, 0.12, SKY, 0.07),
        badge(wide, 0, -0.23, 0.1, YELLOW, 0.06),
        box((-wide, 0, -0.02), (0.05, 0.14, 0.25), INK),
        *fins,
    ]
    top = Place((0, 0, tall + 0.24), 0.13)
    return Build(solids, top, Place((0, 0, tall - 0.08), wide + 0.02), Place((wide + 0.05, 0, -0.06), 0.13))


def fish(random: Random) -> Build:
    """Flat and long; big eyes and red mouth in front, forked tail at the back."""
    long, tall, wide = 0.52 * _vary(random, 0.1), 0.36 * _vary(random), 0.24 * _vary(random)
    solids = [
        ball((0.06, 0, 0), (long, wide, tall), BODY),
        ball((long + 0.02, 0, -0.05), (0.09, 0.12, 0.09), RED),
        roof((-long - 0.02, 0, 0), (0.32, 0.06, 0.2), SECOND, (0.0, 90.0, 0.0)),
        roof((0.0, 0, tall + 0.03), (0.26, 0.05, 0.13), SECOND),
    ]
    solids += _pair(lambda s: ball((0.68 * long, s * 0.62 * wide, 0.34 * tall), 0.11, WHITE))
    solids += _pair(lambda s: ball((0.68 * long + 0.07, s * (0.62 * wide + 0.05), 0.34 * tall), 0.065, BLACK))
    solids += _pair(lambda s: ball((0.04, s * (wide + 0.03), -0.12), (0.16, 0.09, 0.08), SECOND, (s * 35, 0, 0)))
    top = Place((0.18, 0, 0.93 * tall), 0.15)
    return Build(solids, top, None, Place((long - 0.06, 0, -0.25), 0.14), wave=(1, 0, 0))


def rabbit(random: Random) -> Build:
    """Sits upright; long ears, pale belly, round white tail."""
    tall, wide, ear = _vary(random), _vary(random), _vary(random)
    head = 0.22 * tall
    solids = [
        ball((0, 0, -0.34), (0.34 * wide, 0.36 * wide, 0.38 * tall), BODY),
        ball((0.17 * wide, 0, -0.34), (0.2, 0.22, 0.26), SECOND),
        ball((0.05, 0, head), (0.26, 0.27, 0.25), MAIN),
        ball((0.27, 0, head - 0.08), (0.08, 0.12, 0.09), WHITE),
        ball((0.35, 0, head - 0.04), 0.05, PINK),
        ball((-0.38 * wide, 0, -0.5), 0.16, WHITE),
    ]
    solids += _pair(lambda s: ball((0.24, s * 0.12, head + 0.07), 0.06, INK))
    solids += _pair(lambda s: ball((0.0, s * 0.14, head + 0.4), (0.08, 0.1, 0.28 * ear), MAIN, (-s * 10, 0, 0)))
    solids += _pair(lambda s: ball((0.06, s * 0.14, head + 0.4), (0.05, 0.06, 0.22 * ear), SECOND, (-s * 10, 0, 0)))
    solids += _pair(lambda s: ball((0.2, s * 0.18, -0.64), (0.2, 0.12, 0.1), MAIN))
    top = Place((0.05, 0, head + 0.22), 0.13)
    return Build(solids, top, Place((0.03, 0, head - 0.22), 0.24), Place((0.3, 0, head - 0.26), 0.15))


def mushroom(random: Random) -> Build:
    """Cap on a stem with a face and, at the back, a door; never seen in training."""
    cap, stem, tall = 0.58 * _vary(random), 0.24 * _vary(random), _vary(random)
    solids = [
        ball((0, 0, 0.2), (cap, cap, 0.36 * tall), BODY),
        cone((0, 0, -0.3), 1.25 * stem, stem, 0.38, SECOND, rounding=0.05),
        ball((0.12, 0, 0.2 + 0.34 * tall), (0.2, 0.2, 0.06), SECOND),
        ball((stem + 0.05, 0, -0.38), (0.05, 0.1, 0.05), RED),
        box((-stem - 0.02, 0, -0.42), (0.06, 0.12, 0.2), BROWN),
    ]
    solids += _pair(lambda s: ball((stem, s * 0.1, -0.22), 0.06, INK_ON_SECOND))
    top = Place((0, 0, 0.2 + 0.34 * tall), 0.17)
    return Build(solids, top, Place((0, 0, -0.2), stem + 0.06), Place((stem + 0.08, 0, -0.5), 0.13))


def whale(random: Random) -> Build:
    """Blunt head with a wide mouth, level tail fluke, water spout; never seen in training."""
    long, wide, tall = 0.56 * _vary(random, 0.1), 0.4 * _vary(random), 0.36 * _vary(random)
    solids = [
        ball((0.1, 0, 0), (long, wide, tall), BODY),
        ball((0.16, 0, -0.14), (long - 0.04, 0.9 * wide, 0.8 * tall - 0.04), SECOND),
        cone((-long, 0, 0.08), 0.16, 0.07, 0.2, MAIN, (0.0, -65.0, 0.0), 0.05),
        cone((0.2, 0, tall + 0.1), 0.05, 0.1, 0.12, SKY),
        ball((0.2, 0, tall + 0.22), (0.17, 0.17, 0.07), SKY),
    ]
    solids += _pair(lambda s: ball((0.1 + 0.72 * long, s * 0.66 * wide, 0.1), 0.065, INK))
    solids += _pair(lambda s: ball((-long - 0.18, s * 0.17, 0.18), (0.13, 0.22, 0.06), MAIN, (0, 0, s * 25)))
    top = Place((-0.05, 0, tall - 0.02), 0.16)
    return Build(solids, top, None, Place((long + 0.06, 0, -0.2), 0.15), wave=(1, 0, 0))


CLASSES: dict[str, Callable[[Random], Build]] = {
    program.__name__: program
    for program in (
        dog, cat, clock, can, duck, vase, teapot, mug, chair, car, house, snowman, robot, boat, lamp, rocket, fish,
        rabbit, mushroom, whale,
    )
}  # fmt: skip
