"""Meshes against the closed forms of a ball."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d.cameras import spread_cameras
from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.export.casting import MeshCaster, Pictures
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.surface import decimated, own_surface, sample_density, silhouette_threshold, surface_at
from dreambooth3d.representation.interface import Triangles
from tests.export.fields import RADIUS, ball


def extract(density_and_color, resolution, threshold=10.0):
    return surface_at(sample_density(density_and_color, resolution), threshold)


@pytest.fixture(scope="module")
def mesh():
    return extract(ball, 64)


def test_ball_has_its_radius_and_volume_and_is_closed(mesh):
    facts = mesh.facts()
    assert np.linalg.norm(mesh.vertices, axis=1) == pytest.approx(RADIUS, abs=2e-3)
    assert facts["mesh_volume"] == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.01)
    assert facts["mesh_watertight"] == 1 and facts["mesh_parts"] == 1


def test_winding_and_normals_point_outward(mesh):
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (mesh.normals * outward).sum(axis=1).min() > 0.98
    corners = mesh.vertices[mesh.faces]
    winding = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((winding * corners.mean(axis=1)).sum(axis=1) > -1e-9).all()


def test_folds_and_degenerate_triangles_have_unit_normals():
    """glTF refuses others. Two triangles lie back to back, and the last one is a line."""
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (5, 5, 5), (6, 6, 6), (7, 7, 7)]
    vertices = torch.tensor(places, dtype=torch.float32)
    faces = torch.tensor([[0, 1, 2], [0, 2, 1], [3, 4, 5]])
    shape = own_surface(Triangles(vertices, faces, torch.zeros(6, 3)))
    assert np.linalg.norm(shape.normals, axis=1) == pytest.approx(1, abs=1e-6)
    assert abs(shape.normals[:3, 2]) == pytest.approx(1)


def sphere_mesh(radius):
    sphere = trimesh.creation.icosphere(4, radius)
    return Mesh(np.float32(sphere.vertices), np.asarray(sphere.faces), np.float32(sphere.vertex_normals))


def test_pictures_of_a_ball_have_its_silhouette():
    cameras = spread_cameras(3)
    masks = MeshCaster(sphere_mesh(RADIUS)).masks(cameras, 128, supersample=2)
    # The outline of a ball from a distance: the cone that touches it.
    half = math.tan(math.asin(RADIUS / 2.5)) / math.tan(math.radians(21)) * 64
    assert masks.sum(dim=(1, 2)).numpy() == pytest.approx(math.pi * half**2, rel=0.01)


def test_threshold_is_that_of_the_silhouettes():
    cameras = spread_cameras(4)
    density = sample_density(ball, 64)
    for radius in (0.35, 0.45):
        opacity = MeshCaster(sphere_mesh(radius)).masks(cameras, 128, supersample=2)
        pictures = Pictures(torch.zeros(4, 3, 128, 128), opacity)
        threshold = silhouette_threshold(density, cameras, pictures)
        assert RADIUS - (threshold - 10) / 100 == pytest.approx(radius, abs=0.03)


def test_decimation_keeps_the_ball(mesh):
    few = decimated(mesh, 1000)
    assert len(few.faces) <= 1000 < len(mesh.faces)
    assert few.facts()["mesh_volume"] == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    assert decimated(mesh, 10**6) is mesh


def test_floaters_go_and_large_parts_stay():
    def parts(points):
        def one(center, radius):
            return 100 * (radius - (points - torch.tensor(center)).norm(dim=-1))

        fields = [one((0.0, 0.0, 0.0), 0.4), one((0.7, 0.0, 0.0), 0.2), one((0.0, 0.8, 0.0), 0.06)]
        return (10 + torch.stack(fields).amax(dim=0)).clamp(min=0), torch.ones_like(points)

    mesh = extract(parts, 64)
    assert mesh.facts()["mesh_parts"] == 2
    assert mesh.vertices[:, 0].max() > 0.85 and mesh.vertices[:, 1].max() < 0.45


def test_hidden_cavity_is_filled_and_border_is_closed():
    def shell(points):
        radius = points.norm(dim=-1)
        return torch.where((radius > 0.3) & (radius < 0.6), 50.0, 0.0), torch.ones_like(points)

    assert extract(shell, 48).facts()["mesh_parts"] == 1
    full = extract(lambda points: (torch.full_like(points[:, 0], 50.0), torch.ones_like(points)), 16)
    assert full.facts()["mesh_watertight"] == 1 and full.facts()["mesh_volume"] == pytest.approx(8, rel=0.25)


@pytest.mark.parametrize("value", [0.0, 9.0, math.nan])
def test_no_surface_is_an_error(value):
    with pytest.raises(EmptyFieldError, match="radiance field"):
        extract(lambda points: (torch.full_like(points[:, 0], value), points), 16)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_no_silhouette_is_an_error(value):
    density = np.full((8, 8, 8), value, np.float32)
    empty = Pictures(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8))
    with pytest.raises(EmptyFieldError, match="radiance field"):
        silhouette_threshold(density, spread_cameras(1), empty)
