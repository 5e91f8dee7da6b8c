"""The grid of tetrahedra, and the surfaces in it, against closed forms and trimesh."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh

from dreambooth3d.surface.grid import tetrahedral_grid
from dreambooth3d.surface.marching import surface_vertices, topology
from tests.surface.scenes import ball, torus


@pytest.mark.parametrize("resolution", [8, 15])
def test_tetrahedra_fill_the_ball_once_and_are_all_alike(resolution: int) -> None:
    grid = tetrahedral_grid(resolution)
    first, *others = grid.vertices[grid.tetrahedra].unbind(1)
    volumes = torch.linalg.det(torch.stack([other - first for other in others], dim=1)) / 6
    torch.testing.assert_close(volumes, torch.full_like(volumes, grid.cell**3 / 12))
    sides = (grid.vertices[grid.edges[:, 0]] - grid.vertices[grid.edges[:, 1]]).norm(dim=1) / grid.cell
    assert sides.amin().item() == pytest.approx(math.sqrt(3) / 2, abs=1e-4) and sides.amax().item() < 1.0001
    # Each triangle inside belongs to two tetrahedra; those of one lie between border vertices.
    triangles = torch.cat([grid.tetrahedra[:, kept] for kept in ([0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3])])
    triangles, owners = triangles.sort(dim=1).values.unique(dim=0, return_counts=True)
    assert owners.max() == 2 and grid.border[triangles[owners == 1]].all()
    assert grid.vertices[~grid.border].norm(dim=1).max() > 1 - 2 * grid.cell


def test_edges_are_those_of_the_tetrahedra() -> None:
    grid = tetrahedral_grid(8)
    ends = grid.edges[grid.tetrahedron_edges]
    for number, (first, second) in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]):
        expected = grid.tetrahedra[:, [first, second]].sort(dim=1).values
        assert torch.equal(ends[:, number], expected)


def test_values_between_vertices_are_interpolated() -> None:
    """A linear function exactly; outside the grid the given value."""
    grid, slope = tetrahedral_grid(10), torch.tensor([0.3, -0.7, 0.2])
    points = 1.2 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) - 0.6
    points = points[points.norm(dim=1) < 0.7]
    found = grid.interpolate(grid.vertices @ slope + 0.1, points, 9.0)
    torch.testing.assert_close(found, points @ slope + 0.1, atol=1e-5, rtol=0)
    assert grid.interpolate(torch.zeros(len(grid.vertices)), torch.tensor([[0.99, 0.99, 0.99]]), 9.0).item() == 9.0


@pytest.mark.parametrize(("made", "volume", "euler"), [(ball, 4 / 3 * math.pi * 0.45**3, 2), (torus, 0.395, 0)])
def test_surfaces_are_closed_and_face_outwards(made: object, volume: float, euler: int) -> None:
    """Volumes 4/3 pi r^3 and 2 pi^2 R r^2."""
    vertices, triangles = made()
    mesh = trimesh.Trimesh(vertices.numpy(), triangles.faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == euler
    assert mesh.volume == pytest.approx(volume, rel=0.02)
    expected = {tuple(pair) for pair in mesh.edges_unique.tolist()}
    assert {tuple(pair) for pair in triangles.edges.tolist()} == expected and len(triangles.edges) == len(expected)
    for edge, beside in zip(triangles.edges.tolist()[::97], triangles.beside.tolist()[::97], strict=True):
        assert all(set(edge) <= set(triangles.faces[face].tolist()) for face in beside) and beside[0] != beside[1]


def test_any_signs_give_a_closed_surface() -> None:
    """Noise meets all cases of a tetrahedron, and stays outside at the border."""
    grid = tetrahedral_grid(9)
    inside = (torch.rand(len(grid.vertices), generator=torch.Generator().manual_seed(0)) < 0.5) & ~grid.border
    triangles = topology(grid, inside)
    signed = torch.where(inside, -1.0, 1.0)
    vertices = surface_vertices(triangles, grid.vertices, signed)
    torch.testing.assert_close(vertices, grid.vertices[triangles.ends].mean(dim=1))
    mesh = trimesh.Trimesh(vertices.numpy(), triangles.faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    nothing = topology(grid, torch.zeros_like(inside))
    assert len(nothing.faces) == len(nothing.edges) == len(nothing.ends) == 0


def test_vertices_follow_distances_and_places() -> None:
    """Gradients against finite differences in double precision."""
    grid = tetrahedral_grid(8)
    signed = grid.vertices.double().norm(dim=1) - 0.5
    triangles = topology(grid, signed < 0)
    places = grid.vertices.double().requires_grad_()
    near = triangles.ends.unique()[:20]

    def moved(values: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        spread = torch.zeros_like(signed).index_copy(0, near, values)
        shifted = places.detach() + torch.zeros_like(places).index_copy(0, near, shift)
        return surface_vertices(triangles, shifted, signed + spread)

    start = (
        torch.zeros(20, dtype=torch.double, requires_grad=True),
        torch.zeros(20, 3, dtype=torch.double, requires_grad=True),
    )
    assert torch.autograd.gradcheck(moved, start)
