"""Scenes of primitive solids and their signed distances.

A scene's primitives are sorted by kind, and every scene of a batch has the same number of slots per kind, so that each
kind's formula runs once, on its own slice. A distance never exceeds the true one (ellipsoids and prisms are bounds,
the others are exact), so that sphere tracing cannot step over a surface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

KINDS = ("ellipsoid", "box", "cone", "torus", "prism")
ELLIPSOID, BOX, CONE, TORUS, PRISM = range(len(KINDS))
PATTERNS = ("plain", "striped", "checkered", "spotted", "zigzag")
FAR_AWAY = 50.0


@dataclass(frozen=True)
class Scene:
    """A batch of scenes, each a union of primitives, in world units (z up, the subject in the unit ball).

    Attributes:
        slots: number of primitive slots of each of `KINDS`; slots are stored in this order. P is their sum.
        centre: (B, P, 3); an unused slot lies `FAR_AWAY`.
        rotation: (B, P, 3, 3), local to world.
        size: (B, P, 3). Ellipsoid: radii. Box: half sizes. Cone: radius at local -z, at local +z, half height.
            Torus: radius of the ring around local z, radius of the tube, unused. Prism (a roof whose ridge runs along
            local y): half width, half length, half height.
        rounding: (B, P) radius of the rounded edges of boxes and cones, inside `size`.
        colour: (B, P, 3) in [0, 1].
        patterned: (B, P) bool, whether the scene's pattern covers this primitive.
        pattern: (B,) index into `PATTERNS`.
        pattern_colour: (B, 3) in [0, 1].
        pattern_wave: (B, 3) direction of the pattern times its angular frequency, in radians per world unit.
        extent: (B, 3) half sizes of an axis-aligned box around the origin that holds the scene.
    """

    slots: tuple[int, ...]
    centre: Float[Tensor, "scenes slots 3"]
    rotation: Float[Tensor, "scenes slots 3 3"]
    size: Float[Tensor, "scenes slots 3"]
    rounding: Float[Tensor, "scenes slots"]
    colour: Float[Tensor, "scenes slots 3"]
    patterned: Bool[Tensor, "scenes slots"]
    pattern: Int[Tensor, " scenes"]
    pattern_colour: Float[Tensor, "scenes 3"]
    pattern_wave: Float[Tensor, "scenes 3"]
    extent: Float[Tensor, "scenes 3"]

    def __len__(self) -> int:
        return self.centre.shape[0]

    def to(self, device: torch.device | str) -> Scene:
        """The same scenes on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def __getitem__(self, index: slice | Tensor) -> Scene:
        return replace(self, **{name: value[index] for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "slots"}


def signed_distance(scene: Scene, points: Float[Tensor, "scenes n 3"]) -> Float[Tensor, "scenes n"]:
    """Signed distance from points to the nearest surface of their scene; negative inside.

    Args:
        scene: B scenes.
        points: (B, N, 3) in world units.

    Returns:
        (B, N) in world units, never more than the true distance.
    """
    nearest = None
    for kind, part in _kind_slices(scene):
        smallest = _kind_minimum(kind, points.is_cuda)(*_kind_inputs(scene, points, part))
        nearest = smallest if nearest is None else torch.minimum(nearest, smallest)
    if nearest is None:
        return points.new_full(points.shape[:2], FAR_AWAY)
    return nearest


def nearest_primitive(scene: Scene, points: Float[Tensor, "scenes n 3"]) -> Int[Tensor, "scenes n"]:
    """(B, N) index of the primitive slot whose surface is nearest to each of the points (B, N, 3)."""
    distances = [_kind_distance(kind, *_kind_inputs(scene, points, part)) for kind, part in _kind_slices(scene)]
    return torch.cat(distances, dim=1).argmin(dim=1)


def surface_normal(
    scene: Scene, points: Float[Tensor, "scenes n 3"], step: float = 1e-3
) -> Float[Tensor, "scenes n 3"]:
    """(B, N, 3) unit outward normals at surface points (B, N, 3), by differences over a tetrahedron of size `step`.

    Source: I. Quilez, "Normals for an SDF" (four evaluations instead of the six of central differences).
    """
    corners = points.new_tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    batch, count, _ = points.shape
    probes = (points[:, None] + step * corners[:, None]).reshape(batch, 4 * count, 3)
    distance = signed_distance(scene, probes).reshape(batch, 4, count)
    normal = torch.einsum("bkn,kc->bnc", distance, corners)
    return torch.nn.functional.normalize(normal, dim=-1)


def surface_colour(scene: Scene, points: Float[Tensor, "scenes n 3"]) -> Float[Tensor, "scenes n 3"]:
    """(B, N, 3) unshaded colours in [0, 1] at surface points (B, N, 3)."""
    index = nearest_primitive(scene, points)
    colour = torch.gather(scene.colour, 1, index[..., None].expand(-1, -1, 3))
    marked = torch.gather(scene.patterned, 1, index) & _pattern_mask(scene, points)
    return torch.where(marked[..., None], scene.pattern_colour[:, None], colour)


def _pattern_mask(scene: Scene, points: Tensor) -> Tensor:
    """(B, N) bool: where the pattern shows its own colour rather than the surface's."""
    frequency = scene.pattern_wave.norm(dim=-1)[:, None]
    along = torch.einsum("bnc,bc->bn", points, scene.pattern_wave)
    x, y, z = (points * frequency[..., None]).unbind(-1)
    waves = (
        torch.full_like(along, -1.0),
        along.sin(),
        (0.8 * x).sin() * (0.8 * y + 0.8).sin() * (0.8 * z).sin(),
        x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos() - 0.55,
        (along + 1.3 * torch.asin((x + y + z - along).sin())).sin(),
    )
    kind = scene.pattern[:, None].expand_as(along)
    return torch.gather(torch.stack(waves, dim=-1), 2, kind[..., None]).squeeze(-1) > 0


def _kind_slices(scene: Scene) -> Iterator[tuple[int, slice]]:
    """Each kind that is present, with its slots."""
    start = 0
    for kind, count in enumerate(scene.slots):
        if count:
            yield kind, slice(start, start + count)
        start += count


def _kind_inputs(scene: Scene, points: Tensor, part: slice) -> tuple[Tensor, ...]:
    return points, scene.centre[:, part], scene.rotation[:, part], scene.size[:, part], scene.rounding[:, part]


def _kind_distance(
    kind: int, points: Tensor, centre: Tensor, rotation: Tensor, size: Tensor, rounding: Tensor
) -> Tensor:
    """(B, slots, N) distances from points (B, N, 3) to the primitives of one kind."""
    x, y, z = _to_local(points, centre, rotation)
    return _DISTANCES[kind](x, y, z, [value[..., None] for value in size.unbind(-1)], rounding[..., None])


@cache
def _kind_minimum(kind: int, fused: bool) -> Callable[..., Tensor]:
    """The distance (B, N) to the nearest primitive of one kind; fused into one kernel where a compiler pays."""

    def minimum(points: Tensor, centre: Tensor, rotation: Tensor, size: Tensor, rounding: Tensor) -> Tensor:
        return _kind_distance(kind, points, centre, rotation, size, rounding).amin(dim=1)

    if not fused:
        return minimum
    # Each kind is one more version of the same function for the compiler, which by default gives up after eight.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(_DISTANCES))
    return torch.compile(minimum, dynamic=True)


def _to_local(points: Tensor, centre: Tensor, rotation: Tensor) -> list[Tensor]:
    """The points' x, y, z in each primitive's frame, (B, P, N) each.

    Written as multiply-adds: a matrix product would lose three digits where the caller allows TF32.
    """
    x, y, z = (value[:, None] for value in points.unbind(-1))
    offset = -(rotation * centre[..., None]).sum(dim=-2)
    axes = []
    for axis in range(3):
        column = [rotation[:, :, row, axis, None] for row in range(3)]
        value = torch.addcmul(offset[:, :, axis, None], column[0], x)
        axes.append(torch.addcmul(torch.addcmul(value, column[1], y), column[2], z))
    return axes


def _ellipsoid_distance(x: Tensor, y: Tensor, z: Tensor, size: list[Tensor], rounding: Tensor) -> Tensor:
    """First-order distance; a lower bound outside, because the scaled norm is convex."""
    u, v, w = x / size[0], y / size[1], z / size[2]
    scaled = (u * u + v * v + w * w).sqrt()
    slope = ((u / size[0]).square() + (v / size[1]).square() + (w / size[2]).square()).sqrt()
    return scaled * (scaled - 1) / slope.clamp_min(1e-6)


def _box_distance(x: Tensor, y: Tensor, z: Tensor, size: list[Tensor], rounding: Tensor) -> Tensor:
    dx, dy, dz = x.abs() - size[0] + rounding, y.abs() - size[1] + rounding, z.abs() - size[2] + rounding
    outside = (dx.clamp_min(0).square() + dy.clamp_min(0).square() + dz.clamp_min(0).square()).sqrt()
    return outside + torch.maximum(torch.maximum(dx, dy), dz).clamp_max(0) - rounding


def _cone_distance(x: Tensor, y: Tensor, z: Tensor, size: list[Tensor], rounding: Tensor) -> Tensor:
    """Source: I. Quilez, "Distance functions", capped cone; shrunk by the rounding, then grown by it."""
    bottom, top, half = ((value - rounding).clamp_min(1e-3) for value in size)
    radius = (x * x + y * y).sqrt()
    cap = radius - torch.minimum(radius, torch.where(z < 0, bottom, top))
    height = z.abs() - half
    slope_r, slope_z = top - bottom, 2 * half
    along = ((top - radius) * slope_r + (half - z) * slope_z) / (slope_r * slope_r + slope_z * slope_z)
    along = along.clamp(0, 1)
    side_r, side_z = radius - top + slope_r * along, z - half + slope_z * along
    squared = torch.minimum(cap * cap + height * height, side_r * side_r + side_z * side_z)
    inside = (side_r < 0) & (height < 0)
    return torch.where(inside, -1.0, 1.0) * squared.sqrt() - rounding


def _torus_distance(x: Tensor, y: Tensor, z: Tensor, size: list[Tensor], rounding: Tensor) -> Tensor:
    ring = (x * x + y * y).sqrt() - size[0]
    return (ring * ring + z * z).sqrt() - size[1]


def _prism_distance(x: Tensor, y: Tensor, z: Tensor, size: list[Tensor], rounding: Tensor) -> Tensor:
    """Largest distance to one of the five planes: exact on the faces, a lower bound beyond the edges."""
    width, length, half = size
    slope = (4 * half * half + width * width).sqrt()
    roof = (2 * half * x.abs() + width * (z - half)) / slope
    return torch.maximum(torch.maximum(roof, y.abs() - length), -z - half)


_DISTANCES = (_ellipsoid_distance, _box_distance, _cone_distance, _torus_distance, _prism_distance)
