"""Meshes that a user gives, written by trimesh and by the export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.export.gltf import to_glb
from dreambooth3d.export.surface import own_surface
from dreambooth3d.surface.files import read_mesh
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from tests.surface.scenes import AROUND


def test_an_exported_mesh_is_read_as_it_stood(tmp_path: Path) -> None:
    made = SurfaceMesh(MeshConfig(resolution=24, initial_radii=(0.8, 0.4, 0.6)))
    triangles = made.triangles()
    colors = triangles.colors.detach().numpy().clip(0, 1)
    (tmp_path / "own.glb").write_bytes(to_glb(replace(own_surface(triangles), colors=colors)))
    again = SurfaceMesh.of_mesh(read_mesh(tmp_path / "own.glb"), MeshConfig(resolution=24))
    expected, found = made.render(AROUND, 32).opacity, again.render(AROUND, 32).opacity
    assert torch.minimum(expected, found).sum() > 0.97 * torch.maximum(expected, found).sum()


def test_other_formats_stand_with_z_up_and_fill_the_ball(tmp_path: Path) -> None:
    box = trimesh.creation.box((2.0, 4.0, 20.0)).apply_translation((3, 4, 5))
    box.export(tmp_path / "box.obj")
    mesh = read_mesh(tmp_path / "box.obj")
    assert np.linalg.norm(mesh.vertices, axis=1) == pytest.approx(0.8)
    assert mesh.extents / mesh.extents[0] == pytest.approx([1, 2, 10])


def test_what_is_no_mesh_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.glb").write_text("no mesh")
    trimesh.PointCloud(np.zeros((3, 3))).export(tmp_path / "points.ply")
    for name, reason in (("none.obj", "no such file"), ("text.glb", "cannot be read"), ("points.ply", "no triangles")):
        with pytest.raises(ConfigError, match=f"{name}: .*{reason}"):
            read_mesh(tmp_path / name)
