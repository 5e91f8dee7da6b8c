"""Meshes that a user gives, written by trimesh and by the export."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.painted import PaintedConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.sketch import SketchConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.export.gltf import to_glb
from dreambooth3d.export.surface import own_surface
from dreambooth3d.surface.files import read_given, read_mesh, with_mesh_digests
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


def test_a_uv_map_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 0.5\nf 1/1 2/2 3/3\n")
    assert read_mesh(tmp_path / "t.obj").visual.uv == pytest.approx(np.array([[0, 0], [1, 0], [0, 0.5]]))


def test_a_fresh_mesh_has_the_shape_of_its_file(tmp_path: Path) -> None:
    """Against the volume of the box, which trimesh knows."""
    trimesh.creation.box((1.0, 1.0, 1.5)).export(tmp_path / "box.stl")
    config = MeshConfig(file=str(tmp_path / "box.stl"), resolution=32)
    made = SurfaceMesh.fresh(config, RenderConfig(), "cpu")
    triangles = made.triangles()
    found = trimesh.Trimesh(triangles.vertices.numpy(), triangles.faces.numpy())
    true = read_mesh(tmp_path / "box.stl")
    assert found.volume == pytest.approx(true.volume, rel=0.05)
    assert found.bounds == pytest.approx(true.bounds, abs=0.03)
    (tmp_path / "box.stl").unlink()
    again = SurfaceMesh.from_state(made.state(), made.settings())
    assert torch.equal(again.render(AROUND, 16).opacity, made.render(AROUND, 16).opacity), "the file is needed once"


def test_a_file_is_known_by_its_contents(tmp_path: Path) -> None:
    """The digest that is part of a stage's inputs is coreutils' of the file; another file of the name is refused."""
    file = tmp_path / "box.ply"
    trimesh.creation.box().export(file)
    digest = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    stages = (
        InitNerfConfig(representation="mesh", mesh=MeshConfig(file=str(file))),
        InitNerfConfig(sketch=SketchConfig(file=str(file))),
        InitNerfConfig(representation="painted", painted=PaintedConfig(file=str(file))),
    )
    for stage, name in zip(stages, ("mesh", "sketch", "painted"), strict=True):
        assert getattr(with_mesh_digests(stage), name).digest == digest
    pinned = with_mesh_digests(stages[0]).mesh
    assert len(read_given(pinned).faces) == 12
    trimesh.creation.icosphere().export(file)
    with pytest.raises(ConfigError, match="box.ply: has changed since the run began"):
        read_given(pinned)
    assert with_mesh_digests(InitNerfConfig()) == InitNerfConfig()


def test_what_is_no_mesh_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.glb").write_text("no mesh")
    (tmp_path / "empty.obj").write_text("")
    (tmp_path / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    trimesh.PointCloud(np.zeros((3, 3))).export(tmp_path / "points.ply")
    reasons = {
        "none.obj": "no such file",
        "text.glb": "cannot be read",
        "points.ply": "no triangles",
        "empty.obj": "is empty",
        "point.obj": "have no size",
    }
    for name, reason in reasons.items():
        with pytest.raises(ConfigError, match=f"{name}: .*{reason}"):
            read_mesh(tmp_path / name)
