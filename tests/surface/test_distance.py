"""Signed distances to begin from, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d.surface.distance import DensityVolume, ellipsoid_distance, mesh_distance, winding_numbers

PLACES = 1.8 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 0.9


def box_distance(places: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    beyond = places.abs() - half
    return beyond.clamp(min=0).norm(dim=1) + beyond.amax(dim=1).clamp(max=0)


def test_an_ellipsoid_of_equal_axes_is_a_ball() -> None:
    found = ellipsoid_distance(PLACES, (0.5, 0.5, 0.5))
    torch.testing.assert_close(found, PLACES.norm(dim=1) - 0.5, atol=1e-5, rtol=0)
    long = ellipsoid_distance(torch.tensor([[0.7, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.5]]), (0.7, 0.3, 0.5))
    torch.testing.assert_close(long, torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("turn", [1, -1])
def test_distance_of_a_box_is_the_closed_form(turn: int) -> None:
    """Also where all of its triangles are turned inside out, only the sign is lost."""
    half = torch.tensor([0.5, 0.3, 0.4])
    box = trimesh.creation.box(2 * half.numpy())
    if turn < 0:
        box.invert()
    found, expected = mesh_distance(PLACES, box), box_distance(PLACES, half)
    if turn < 0:
        found, expected = found.abs(), expected.abs()
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_parts_that_run_through_each_other_have_one_inside() -> None:
    both = trimesh.util.concatenate(
        [trimesh.creation.icosphere(3, 0.4), trimesh.creation.icosphere(3, 0.4).apply_translation([0.4, 0, 0])]
    )
    expected = torch.minimum(PLACES.norm(dim=1), (PLACES - torch.tensor([0.4, 0.0, 0.0])).norm(dim=1)) - 0.4
    found, sure = mesh_distance(PLACES, both), expected.abs() > 0.02
    assert torch.equal(found[sure] < 0, expected[sure] < 0)


def test_a_hole_leaves_the_rest_inside() -> None:
    ball = trimesh.creation.icosphere(3, 0.5)
    open_above = torch.from_numpy(np.asarray(ball.triangles[ball.triangles_center[:, 2] < 0.47])).float()
    numbers = winding_numbers(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.9], [0.4, 0.0, 0.0]]), open_above)
    assert numbers[0] > 0.9 and abs(numbers[1]) < 0.1 and numbers[2] > 0.9


def test_a_density_is_cut_without_floaters_and_cavities() -> None:
    axis = torch.linspace(-1, 1, 65)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    radius, aside = points.norm(dim=-1), (points - torch.tensor([0.8, 0.0, 0.0])).norm(dim=-1)
    density = 20 - 100 * (radius - 0.5)
    density = torch.where(radius < 0.2, 0.0, density.clamp(min=0))
    density = torch.where(aside < 0.08, 30.0, density)
    found = DensityVolume(density.numpy()).distance(PLACES, 20.0)
    assert found is not None
    torch.testing.assert_close(found, PLACES.norm(dim=1) - 0.5, atol=0.01, rtol=0)
    assert DensityVolume(density.numpy()).distance(PLACES, 1000.0) is None
