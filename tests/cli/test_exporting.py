"""What `dreambooth3d export` makes of a run's asset, beside the run itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh

from dreambooth3d.cli import exporting
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.errors import ConfigError
from tests.export.fields import blob_field

SMALL = {"mesh_resolution": 32, "frame_rays": 24, "samples_per_ray": 24, "max_triangles": 600, "texture_size": 64}


def run_with(**params: str) -> Any:
    """A finished run of an export with these settings, as MLflow keeps them."""
    info = SimpleNamespace(run_name="a-run", run_id="1")
    params = {f"export_asset.{key}": value for key, value in params.items()}
    return SimpleNamespace(info=info, data=SimpleNamespace(tags={"subject": "blob"}, params=params))


def test_settings_that_nobody_gives_are_the_runs_own() -> None:
    run = run_with(
        mesh_threshold="7.5", shell_cells="3.0", max_triangles="900", colors="vertices", six_views="True", metres="0.2",
        copyright="Ada", film_encoder="libx264",
    )  # fmt: skip
    config = exporting._settings(run, {"metres": 0.3})
    wanted = {"mesh_threshold": 7.5, "shell_cells": 3.0, "max_triangles": 900, "colors": "vertices", "six_views": True}
    assert config == ExportConfig(**wanted, metres=0.3, copyright="Ada")
    assert exporting._settings(run_with(mesh_threshold="silhouette"), {}) == ExportConfig()
    with pytest.raises(ConfigError, match="texture_size"):
        exporting._settings(run, {"texture_size": 3})


@pytest.mark.slow
def test_gaussians_of_a_field_lie_where_its_mesh_does(tmp_path: Path) -> None:
    """By trimesh's readers: y is up in the one file and down in the other; both are 0.3 m."""
    said: list[str] = []
    order = exporting.Order("a-run", ("glb", "gaussians_ply", "splat", "spz"), None, {}, gaussians=400)
    exporting._write(blob_field(), ExportConfig(metres=0.3, **SMALL), order, run_with(), tmp_path, said.append)
    names = {"asset.glb", "asset_gaussians.ply", "asset.splat", "asset.spz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    (line,) = said
    assert "Gaussians fitted to the field" in line and float(line.split(": ")[1].split(" dB")[0]) > 25
    surface = trimesh.load(tmp_path / "asset.glb")
    cloud = trimesh.load(tmp_path / "asset_gaussians.ply", process=False)
    points = np.asarray(cloud.vertices) * [1, -1, -1]
    assert 200 < len(points) <= 400 and (tmp_path / "asset.splat").stat().st_size == 32 * len(points)
    assert surface.extents.max() == pytest.approx(0.3, rel=1e-3)
    assert points.max(axis=0) == pytest.approx(surface.bounds[1], abs=0.03)
    assert points.min(axis=0) == pytest.approx(surface.bounds[0], abs=0.03)
