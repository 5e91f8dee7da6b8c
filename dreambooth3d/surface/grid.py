"""A grid of tetrahedra that fills the unit ball."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
"""Of a tetrahedron, by its vertices."""
RADIUS = 1.0


@dataclass(frozen=True, eq=False)
class TetrahedralGrid:
    """A body-centred cubic lattice and its tetrahedra, all of one shape; a value that nobody changes.

    Attributes:
        vertices: (v, 3) in [-1, 1]^3.
        tetrahedra: (t, 4) vertices, so that the last three are counter-clockwise seen from the first.
        edges: (e, 2) vertices of all edges.
        tetrahedron_edges: (t, 6) edges of each tetrahedron, in the order of `EDGES`.
        border: (v,) vertices that not all tetrahedra of the lattice surround here; they have to lie outside a surface
            for it to be closed.
        lattice: (v,) number of each vertex among all of the lattice: first the cubes' corners, then their middles.
        cell: edge of the lattice's cubes in world units; the shortest edges measure sqrt(3) / 2 of it.
    """

    vertices: Float[Tensor, "v 3"]
    tetrahedra: Int[Tensor, "t 4"]
    edges: Int[Tensor, "e 2"]
    tetrahedron_edges: Int[Tensor, "t 6"]
    border: Bool[Tensor, " v"]
    lattice: Int[Tensor, " v"]
    cell: float

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def to(self, device: torch.device | str) -> TetrahedralGrid:
        """The same on another device."""
        names = ("vertices", "tetrahedra", "edges", "tetrahedron_edges", "border", "lattice")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def interpolate(
        self, values: Float[Tensor, " v"], points: Float[Tensor, "n 3"], elsewhere: float
    ) -> Float[Tensor, " n"]:
        """(n,) values at points (n, 3): the mean of what the cubes' corners and their middles say, each trilinearly.

        Args:
            values: (v,) of the vertices.
            points: anywhere.
            elsewhere: the value where the lattice goes on and this grid does not.
        """
        cubes = round(2 / self.cell)
        whole = values.new_full(((cubes + 1) ** 3 + cubes**3,), elsewhere).index_copy(0, self.lattice, values)
        found = []
        for part, side in zip(whole.split([(cubes + 1) ** 3, cubes**3]), (cubes + 1, cubes), strict=True):
            volume = part.view(1, 1, side, side, side).permute(0, 1, 4, 3, 2)
            corners, where = side > cubes, points.view(1, -1, 1, 1, 3)
            found.append(grid_sample(volume, where, align_corners=corners, padding_mode="border").flatten())
        return (found[0] + found[1]) / 2


@lru_cache(maxsize=4)
def tetrahedral_grid(resolution: int) -> TetrahedralGrid:
    """The grid over the unit ball, with `resolution` cubes along each side of [-1, 1]^3; on the CPU.

    Source: the lattice of Labelle and Shewchuk 2007, "Isosurface Stuffing", section 2.
    """
    points, tetrahedra = _lattice(resolution)
    cell = 2.0 / resolution
    border = (points.norm(dim=1) >= RADIUS) | (points.abs().amax(dim=1) > 1 - 0.75 * cell)
    kept = tetrahedra[~border[tetrahedra].all(dim=1)]
    used, kept = kept.unique(return_inverse=True)
    points, border = points[used], border[used]
    kept = _turned(points, kept)
    pairs = kept[:, torch.tensor(EDGES)].sort(dim=-1).values  # (t, 6, 2)
    keys, index = (pairs[..., 0] * len(points) + pairs[..., 1]).unique(return_inverse=True)
    edges = torch.stack([keys // len(points), keys % len(points)], dim=1)
    return TetrahedralGrid(points, kept, edges, index, border, used, cell)


def _lattice(resolution: int) -> tuple[Tensor, Tensor]:
    """Corners and middles (v, 3) of the cubes over [-1, 1]^3, and tetrahedra (t, 4) turned anyhow.

    Each face between two cubes has four: the two middles with each of the face's edges.
    """
    steps = torch.arange(resolution + 1)
    corners = torch.cartesian_prod(steps, steps, steps)
    cubes = torch.cartesian_prod(steps[:-1], steps[:-1], steps[:-1])
    points = torch.cat([corners.double(), cubes + 0.5]) * (2.0 / resolution) - 1

    def corner(places: Tensor) -> Tensor:
        return (places[:, 0] * (resolution + 1) + places[:, 1]) * (resolution + 1) + places[:, 2]

    def middle(places: Tensor) -> Tensor:
        return len(corners) + (places[:, 0] * resolution + places[:, 1]) * resolution + places[:, 2]

    axes, found = torch.eye(3, dtype=torch.long), []
    for axis in range(3):
        below = cubes[cubes[:, axis] < resolution - 1]
        above = below + axes[axis]
        across, up = axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        ring = [corner(above + move) for move in (0 * across, across, across + up, up)]
        for first, second in zip(ring, ring[1:] + ring[:1], strict=True):
            found.append(torch.stack([middle(below), middle(above), first, second], dim=1))
    return points.float(), torch.cat(found)


def _turned(points: Tensor, tetrahedra: Tensor) -> Tensor:
    """The same tetrahedra, each with a positive volume."""
    first, *others = points[tetrahedra].unbind(1)
    inverted = torch.linalg.det(torch.stack([other - first for other in others], dim=1)) < 0
    return torch.where(inverted[:, None], tetrahedra[:, [0, 1, 3, 2]], tetrahedra)
