"""Marching tetrahedra: triangles where a signed distance crosses zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreambooth3d.surface.grid import EDGES, TetrahedralGrid

_CORNERS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
"""Of a tetrahedron with a positive volume."""


def _crossed(case: int) -> list[int]:
    """The edges of a tetrahedron that the surface crosses, around it, where bit i of `case` says that i is inside."""
    inside = [bool(case >> corner & 1) for corner in range(4)]
    crossed = [number for number, (first, second) in enumerate(EDGES) if inside[first] != inside[second]]
    if len(crossed) == 4:
        start, *others = crossed
        # Opposite edges share no corner, and are not neighbours around the polygon.
        (opposite,) = (other for other in others if not set(EDGES[other]) & set(EDGES[start]))
        beside = [other for other in others if other != opposite]
        crossed = [start, beside[0], opposite, beside[1]]
    if not crossed:
        return crossed
    middles = torch.stack([_CORNERS[list(EDGES[edge])].mean(dim=0) for edge in crossed])
    normal = torch.linalg.cross(middles[1] - middles[0], middles[2] - middles[0])
    within = torch.tensor(inside)
    outward = _CORNERS[~within].mean(dim=0) - _CORNERS[within].mean(dim=0)
    return crossed if normal @ outward > 0 else crossed[::-1]


def _table() -> tuple[Tensor, Tensor]:
    """(16,) number of triangles of each case, and (16, 2, 3) their edges, counter-clockwise seen from outside."""
    counts, triangles = torch.zeros(16, dtype=torch.long), torch.zeros(16, 2, 3, dtype=torch.long)
    for case in range(16):
        ring = _crossed(case)
        counts[case] = max(0, len(ring) - 2)
        for number in range(len(ring) - 2):
            triangles[case, number] = torch.tensor([ring[0], ring[number + 1], ring[number + 2]])
    return counts, triangles


COUNTS, TRIANGLES = _table()


@dataclass(frozen=True, eq=False)
class Topology:
    """How the triangles of a surface hang together, whatever its vertices' places; a value that nobody changes.

    Attributes:
        ends: (v, 2) the vertices of the grid between which each vertex lies, the first of them inside.
        faces: (f, 3) vertices of each triangle, counter-clockwise seen from outside.
        edges: (e, 2) vertices of the triangles' edges.
        beside: (e, 2) the two triangles at each edge; -1 in place of the second at the border of an open surface.
        inside: (g,) the grid's vertices inside.
    """

    ends: Int[Tensor, "v 2"]
    faces: Int[Tensor, "f 3"]
    edges: Int[Tensor, "e 2"]
    beside: Int[Tensor, "e 2"]
    inside: Bool[Tensor, " g"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def topology(grid: TetrahedralGrid, inside: Bool[Tensor, " v"]) -> Topology:
    """The closed surface between the grid's vertices inside and outside; border vertices must be outside.

    Source: Doi and Koide 1991, "An Efficient Method of Triangulating Equi-Valued Surfaces by Using Tetrahedral Cells".
    """
    device = inside.device
    within = inside[grid.tetrahedra]
    case = (within * torch.tensor([1, 2, 4, 8], device=device)).sum(dim=1)
    cut = ((case > 0) & (case < 15)).nonzero()[:, 0]
    case, own_edges = case[cut], grid.tetrahedron_edges[cut]
    used = torch.zeros(len(grid.edges), dtype=torch.bool, device=device)
    counts, triangles = COUNTS.to(device)[case], TRIANGLES.to(device)[case]
    faces = own_edges.gather(1, triangles.flatten(1)).view(-1, 2, 3)
    faces = torch.cat([faces[:, 0], faces[counts == 2, 1]])
    used[faces.flatten()] = True
    number = used.cumsum(0) - 1
    faces, ends = number[faces], grid.edges[used]
    ends = torch.where(inside[ends[:, :1]], ends, ends.flip(1))
    return Topology(ends, faces, *_neighbours(faces, len(ends)), inside)


def given_topology(faces: Int[Tensor, "f 3"], vertices: int) -> Topology:
    """That of any triangles; where more than two share an edge, every one of them and the next are neighbours there."""
    sides = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).flatten(0, 1)  # (3 f, 2)
    keys, order = (sides.amin(dim=1) * vertices + sides.amax(dim=1)).sort(stable=True)
    owners = order // 3
    joined = keys[1:] == keys[:-1]
    no = torch.zeros(1, dtype=torch.bool, device=faces.device)
    alone = ~(torch.cat([no, joined]) | torch.cat([joined, no]))
    pairs = torch.stack([owners[:-1][joined], owners[1:][joined]], dim=1)
    border = torch.stack([owners[alone], torch.full_like(owners[alone], -1)], dim=1)
    kept = torch.cat([keys[:-1][joined], keys[alone]])
    edges = torch.stack([kept // max(vertices, 1), kept % max(vertices, 1)], dim=1)
    nothing = torch.zeros(0, dtype=torch.bool, device=faces.device)
    return Topology(faces.new_zeros(vertices, 2), faces, edges, torch.cat([pairs, border]), nothing)


def _neighbours(faces: Int[Tensor, "f 3"], vertices: int) -> tuple[Int[Tensor, "e 2"], Int[Tensor, "e 2"]]:
    """The edges of a closed surface, and the two triangles at each."""
    sides = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).flatten(0, 1)  # (3 f, 2)
    keys, order = (sides.amin(dim=1) * vertices + sides.amax(dim=1)).sort(stable=True)
    keys, owners = keys[::2], (order // 3).view(-1, 2)
    return torch.stack([keys // max(vertices, 1), keys % max(vertices, 1)], dim=1), owners


def surface_vertices(
    topology: Topology, places: Float[Tensor, "v 3"], distance: Float[Tensor, " v"]
) -> Float[Tensor, "w 3"]:
    """Where a signed distance, linear along edges, is zero; differentiable in both.

    Args:
        topology: of the signs of `distance`.
        places: (v, 3) of the grid's vertices.
        distance: (v,) there, negative inside.

    Source: Shen et al. 2021, "Deep Marching Tetrahedra", eq. 1.
    """
    inner, outer = distance[topology.ends].unbind(1)
    share = inner / (inner - outer).clamp(max=-1e-6)
    first, second = places[topology.ends].unbind(1)
    return first + share[:, None] * (second - first)
