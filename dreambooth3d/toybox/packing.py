"""From recipes to padded tensors: NumPy over the whole batch, because Python per primitive would dominate."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import torch

from dreambooth3d.toybox.accessories import ACCESSORIES
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.recipes import COLOUR_NAMES, Recipe
from dreambooth3d.toybox.shapes import BOX, CONE, ELLIPSOID, FAR_AWAY, KINDS, PATTERNS, PRISM, TORUS, Scene
from dreambooth3d.toybox.solids import (
    ACCESSORY,
    BLACK,
    BODY,
    DARK,
    INK,
    INK_ON_SECOND,
    MAIN,
    PALETTE,
    SECOND,
    WHITE,
    Solid,
    Vector,
)

RADIUS_RANGE = (0.86, 0.94)
PATTERN_FREQUENCY = {"plain": 1.0, "striped": 16.0, "checkered": 13.0, "spotted": 12.5, "zigzag": 15.0}
_COLUMNS = {"kind": 0, "centre": slice(1, 4), "size": slice(4, 7), "rounding": 7, "tilt": slice(8, 11), "paint": 11}


def pack_scenes(recipes: Sequence[Recipe]) -> Scene:
    """Build, centre, scale and pack subjects.

    Each subject is centred by its bounding box and scaled to a random radius in `RADIUS_RANGE`, so that it lies in the
    unit ball. The function is pure: it may run in worker processes.

    Args:
        recipes: B recipes.

    Returns:
        Scene with B scenes on the CPU.
    """
    solids, waves, radii = zip(*(_build(recipe) for recipe in recipes), strict=True)
    rows = np.array([row for build in solids for row in build], dtype=np.float64)
    owner = np.repeat(np.arange(len(recipes)), [len(build) for build in solids])
    rotation = _rotations(rows[:, _COLUMNS["tilt"]])
    scale, offset, extent = _fit(rows, owner, rotation, np.array(radii))
    rows[:, _COLUMNS["centre"]] = (rows[:, _COLUMNS["centre"]] - offset[owner]) * scale[owner, None]
    rows[:, 4:8] *= scale[owner, None]
    slots, slot = _assign_slots(rows[:, 0].astype(int), owner, len(recipes))
    return _scene(recipes, rows, owner, slot, slots, rotation, np.array(waves), extent)


def _build(recipe: Recipe) -> tuple[list[Solid], Vector, float]:
    """Solids in the class's units, the pattern's wave vector in world units, and the radius to scale to."""
    random = Random(recipe.seed)
    build = CLASSES[recipe.class_noun](random)
    solids = build.solids
    if recipe.accessory is not None:
        solids = solids + ACCESSORIES[recipe.accessory](build)
    frequency = PATTERN_FREQUENCY[recipe.pattern] * random.uniform(0.9, 1.15)
    x, y, z = build.wave
    return solids, (x * frequency, y * frequency, z * frequency), random.uniform(*RADIUS_RANGE)


def _rotations(tilt_deg: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations about x, then y, then z by the angles (n, 3) in degrees."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(tilt_deg)).T, np.sin(np.radians(tilt_deg)).T
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.array(rows).transpose(2, 0, 1)


def _half_extents(rows: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """(n, 3) half sizes of each primitive's axis-aligned box; a bound for cones, tori and prisms."""
    kind, size = rows[:, 0].astype(int)[:, None], rows[:, _COLUMNS["size"]]
    widest = np.maximum(size[:, :1], size[:, 1:2])
    local = np.where(kind == CONE, np.concatenate([widest, widest, size[:, 2:]], axis=1), size)
    ring = size[:, :1] + size[:, 1:2]
    local = np.where(kind == TORUS, np.concatenate([ring, ring, size[:, 1:2]], axis=1), local)
    round_extent = np.sqrt(((rotation * local[:, None]) ** 2).sum(-1))
    flat_extent = (np.abs(rotation) * local[:, None]).sum(-1)
    disc = np.sqrt(((rotation[:, :, :2] * local[:, None, :2]) ** 2).sum(-1)) + np.abs(rotation[:, :, 2]) * local[:, 2:]
    return np.select([kind == ELLIPSOID, (kind == CONE) | (kind == TORUS)], [round_extent, disc], flat_extent)


def _surface_points(rows: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """(n, k, 3) points that hold each primitive in their hull, or nearly so for round ones."""
    kind, size = rows[:, 0].astype(int), rows[:, _COLUMNS["size"]]
    local = np.empty((len(rows), len(_SPHERE), 3))
    for index, template in ((ELLIPSOID, _SPHERE), (BOX, _CUBE), (PRISM, _WEDGE)):
        local[kind == index] = template * size[kind == index, None]
    cone = size[kind == CONE, None]
    radius = np.where(_CYLINDER[:, 2] < 0, cone[..., 0], cone[..., 1])
    local[kind == CONE] = np.concatenate([_CYLINDER[:, :2] * radius[..., None], _CYLINDER[:, 2:] * cone[..., 2:]], -1)
    torus = size[kind == TORUS, None]
    local[kind == TORUS] = _CIRCLE * (torus[..., :1] + torus[..., 1:2])
    return local @ rotation.transpose(0, 2, 1) + rows[:, None, _COLUMNS["centre"]]


def _templates(count: int = 24) -> tuple[np.ndarray, ...]:
    """`count` unit points each: sphere, cube, prism, cylinder and circle."""
    turn = np.arange(count) * np.pi * (3 - 5**0.5)
    height = 1 - (2 * np.arange(count) + 1) / count
    flat = np.sqrt(1 - height**2)
    sphere = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], -1) * 1.03
    cube = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)] * 3, dtype=float)
    wedge = np.array([(x, y, z) for x, z in ((-1, -1), (1, -1), (0, 1)) for y in (-1, 1)] * 4, dtype=float)
    angle = np.arange(count) * 2 * np.pi / (count // 2)
    cylinder = np.stack([np.cos(angle), np.sin(angle), np.where(np.arange(count) < count // 2, -1, 1)], -1)
    circle = np.stack([np.cos(angle / 2), np.sin(angle / 2), 0 * angle], -1)
    return sphere, cube, wedge, cylinder, circle


_SPHERE, _CUBE, _WEDGE, _CYLINDER, _CIRCLE = _templates()


def _fit(
    rows: np.ndarray, owner: np.ndarray, rotation: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale (B,), offset (B, 3) to subtract first, and half extents (B, 3) after both."""
    centre, half = rows[:, _COLUMNS["centre"]], _half_extents(rows, rotation)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    low = np.minimum.reduceat(centre - half, starts)
    high = np.maximum.reduceat(centre + half, starts)
    offset = (low + high) / 2
    points = _surface_points(rows, rotation) - offset[owner, None]
    farthest = np.maximum.reduceat(np.linalg.norm(points, axis=-1).max(axis=1), starts)
    scale = radii / farthest
    return scale, offset, (high - low) / 2 * scale[:, None]


def _assign_slots(kind: np.ndarray, owner: np.ndarray, batch: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Slots per kind (the most that any scene needs) and the slot of each primitive."""
    counts = np.zeros((batch, len(KINDS)), dtype=int)
    np.add.at(counts, (owner, kind), 1)
    slots = counts.max(axis=0)
    group = owner * len(KINDS) + kind
    order = np.argsort(group, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts.reshape(-1))[:-1]])
    rank = np.empty(len(kind), dtype=int)
    rank[order] = np.arange(len(kind)) - first[group[order]]
    return tuple(int(count) for count in slots), np.concatenate([[0], np.cumsum(slots)[:-1]])[kind] + rank


def _scene(
    recipes: Sequence[Recipe],
    rows: np.ndarray,
    owner: np.ndarray,
    slot: np.ndarray,
    slots: tuple[int, ...],
    rotation: np.ndarray,
    waves: np.ndarray,
    extent: np.ndarray,
) -> Scene:
    shape = (len(recipes), sum(slots))
    main, second, accessory = _colour_indices(recipes)
    paint = rows[:, _COLUMNS["paint"]].astype(int)

    def padded(values: np.ndarray, fill: float | np.ndarray) -> torch.Tensor:
        result = np.empty((*shape, *values.shape[1:]), dtype=np.float32)
        result[...] = fill
        result[owner, slot] = values
        return torch.from_numpy(result)

    colour = _PALETTE[_resolve_paint(paint, main[owner], second[owner], accessory[owner])]
    return Scene(
        slots=slots,
        centre=padded(rows[:, _COLUMNS["centre"]], FAR_AWAY),
        rotation=padded(rotation, np.eye(3)),
        size=padded(rows[:, _COLUMNS["size"]], 0.01),
        rounding=padded(rows[:, _COLUMNS["rounding"]], 0.0),
        colour=padded(colour, 0.0),
        patterned=padded((paint == BODY).astype(np.float32), 0.0).bool(),
        pattern=torch.tensor([PATTERNS.index(recipe.pattern) for recipe in recipes]),
        pattern_colour=torch.from_numpy(_PALETTE[second].astype(np.float32)),
        pattern_wave=torch.from_numpy(waves.astype(np.float32)),
        extent=torch.from_numpy((extent + 1e-3).astype(np.float32)),
    )


_PALETTE = np.array(PALETTE)
_CONTRAST = np.array([WHITE if index in DARK else BLACK for index in range(len(PALETTE))])


def _colour_indices(recipes: Sequence[Recipe]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index = {name: number for number, name in enumerate(COLOUR_NAMES)}
    rows = [(index[r.main], index[r.second], index[r.accessory_colour or r.main]) for r in recipes]
    main, second, accessory = np.array(rows).T
    return main, second, accessory


def _resolve_paint(paint: np.ndarray, main: np.ndarray, second: np.ndarray, accessory: np.ndarray) -> np.ndarray:
    """Palette index of each primitive; paints that are not roles are palette indices already."""
    roles = (BODY, MAIN, SECOND, ACCESSORY, INK, INK_ON_SECOND)
    values = (main, main, second, accessory, _CONTRAST[main], _CONTRAST[second])
    return np.select([paint == role for role in roles], values, paint)
