"""Meshes against the closed forms of a ball."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.export.mesh import extract_mesh, srgb_to_linear, surface_of, to_glb, to_gltf_axes
from dreambooth3d.representation.interface import Triangles
from tests.export.fields import RADIUS, ball


@pytest.fixture(scope="module")
def mesh():
    return extract_mesh(ball, resolution=64, threshold=10.0)


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


def test_glb_reloads_upright_facing_z_with_linear_colors(mesh):
    loaded = trimesh.load(io.BytesIO(to_glb(mesh)), file_type="glb").to_geometry()
    colors = np.asarray(loaded.visual.vertex_colors)[:, :3]
    assert len(loaded.vertices) == len(mesh.vertices)
    front, top = loaded.vertices[:, 2].argmax(), loaded.vertices[:, 1].argmax()
    assert colors[front].tolist() == [255, 0, 0]
    assert colors[top].tolist() == [0, 255, 0]
    assert loaded.volume == pytest.approx(mesh.facts()["mesh_volume"], rel=1e-3)


def test_vertex_colors_of_the_glb_are_linear_light():
    grey = extract_mesh(lambda points: (ball(points)[0], torch.full_like(points, 0.5)), 24, 10.0)
    loaded = trimesh.load(io.BytesIO(to_glb(grey)), file_type="glb").to_geometry()
    assert np.unique(np.asarray(loaded.visual.vertex_colors)[:, :3]).tolist() == [round(0.21404 * 255)]
    assert srgb_to_linear(np.array([0.0, 0.04, 1.0])) == pytest.approx([0.0, 0.04 / 12.92, 1.0])


def test_axes_are_turned_not_mirrored():
    turned = to_gltf_axes(np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)
    assert turned[0].tolist() == [0, 0, 1] and turned[2].tolist() == [0, 1, 0]


def test_floaters_go_and_large_parts_stay():
    def parts(points):
        def one(center, radius):
            return 100 * (radius - (points - torch.tensor(center)).norm(dim=-1))

        fields = [one((0.0, 0.0, 0.0), 0.4), one((0.7, 0.0, 0.0), 0.2), one((0.0, 0.8, 0.0), 0.06)]
        return (10 + torch.stack(fields).amax(dim=0)).clamp(min=0), torch.ones_like(points)

    mesh = extract_mesh(parts, 64, 10.0)
    assert mesh.facts()["mesh_parts"] == 2
    assert mesh.vertices[:, 0].max() > 0.85 and mesh.vertices[:, 1].max() < 0.45


def test_hidden_cavity_is_filled_and_border_is_closed():
    def shell(points):
        radius = points.norm(dim=-1)
        return torch.where((radius > 0.3) & (radius < 0.6), 50.0, 0.0), torch.ones_like(points)

    assert extract_mesh(shell, 48, 10.0).facts()["mesh_parts"] == 1
    full = extract_mesh(lambda points: (torch.full_like(points[:, 0], 50.0), torch.ones_like(points)), 16, 10.0)
    assert full.facts()["mesh_watertight"] == 1 and full.facts()["mesh_volume"] == pytest.approx(8, rel=0.25)


class Tetrahedron:
    """An asset of four triangles, half of whose corners are red, or of none."""

    kind = "mesh"

    def __init__(self, faces: int = 4) -> None:
        corners = torch.tensor([[0.5, 0.5, 0.5], [0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [-0.5, -0.5, 0.5]])
        colors = torch.tensor([[1.0, 0.0, 0.0]] * 2 + [[0.0, 0.0, 1.0]] * 2, requires_grad=True)
        winding = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
        self.own = Triangles(corners, winding[:faces], colors)

    def triangles(self) -> Triangles:
        """The four."""
        return self.own


def test_triangles_of_an_asset_are_its_mesh():
    mesh = surface_of(Tetrahedron(), 32, 10.0)
    facts = mesh.facts()
    assert facts["mesh_faces"] == 4 and facts["mesh_watertight"] == 1
    assert facts["mesh_volume"] == pytest.approx(1 / 3), "positive: faces wind counter-clockwise seen from outside"
    assert (np.einsum("vc,vc->v", mesh.normals, mesh.vertices) > 0.8).all()
    assert mesh.colors.tolist() == [[1, 0, 0]] * 2 + [[0, 0, 1]] * 2
    with pytest.raises(EmptyFieldError, match="mesh: it has no triangles"):
        surface_of(Tetrahedron(faces=0), 32, 10.0)


@pytest.mark.parametrize("value", [0.0, 9.0, math.nan])
def test_no_surface_is_an_error(value):
    with pytest.raises(EmptyFieldError, match="radiance field"):
        extract_mesh(lambda points: (torch.full_like(points[:, 0], value), points), 16, 10.0)
