"""The exported folder, read back by other programs."""

from __future__ import annotations

import base64
import io
import json
import re
from functools import partial

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.cameras import Cameras, turntable_cameras
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.errors import DreamBooth3DError, EmptyFieldError
from dreambooth3d.evaluation.meshes import mesh_metrics
from dreambooth3d.export import turntable
from dreambooth3d.export.bundle import export
from dreambooth3d.export.turntable import write_film, write_frames
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from tests.export.fields import blob_field

CONFIG = ExportConfig(
    mesh_resolution=32, frame_size=64, frame_rays=24, samples_per_ray=24, max_triangles=4000, texture_size=128
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    runtime = Runtime(StepLog("export_asset"), tmp_path_factory.mktemp("work"))
    title = "A <b>blob</b> & {{data}}"
    measure = partial(mesh_metrics, truth=GroundTruth({}), size=48)
    return export(blob_field(), CONFIG, runtime, title, {"psnr": 21.25, "clip_i": 0.5}, "a blob", measure)


def test_bundle_holds_what_it_lists(bundle):
    assert {"asset.glb", "asset.html", "cameras.json", "frames/000.png", "frames/035.png", "turntable.mp4"} <= set(
        bundle.files
    )
    assert len(bundle.files) == 40
    assert all((bundle.folder / name).stat().st_size > 0 for name in bundle.files)
    assert not list(bundle.folder.parent.glob("bundle.*"))


def test_mesh_is_compared_with_its_field_and_shown_so(bundle):
    metrics = bundle.record.metrics
    # A soft blob: its mesh has its outline, and its colour where it is opaque.
    assert metrics["mesh/field_iou"] > 0.95 and metrics["mesh/field_psnr"] > 20
    assert "mesh/psnr" not in metrics
    page = (bundle.folder / "asset.html").read_text()
    assert f"{metrics['mesh/field_psnr']:.1f} dB" in page


def test_file_is_measured_in_world_units_whatever_its_size(bundle, tmp_path):
    measure = partial(mesh_metrics, truth=GroundTruth({}), size=48)
    config = CONFIG.model_copy(update={"metres": 0.1})
    small = export(blob_field(), config, Runtime(StepLog("export_asset"), tmp_path), "small", measure=measure)
    assert trimesh.load(small.folder / "asset.glb").extents.max() == pytest.approx(0.1, rel=1e-4)
    for name in ("mesh/field_iou", "mesh/field_psnr"):
        assert small.record.metrics[name] == pytest.approx(bundle.record.metrics[name], abs=0.05)


def test_export_replaces_an_older_bundle(bundle, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old.txt").write_text("old")
    again = export(blob_field(), CONFIG, Runtime(StepLog("export_asset"), tmp_path), "again")
    assert again.files == bundle.files and not (again.folder / "old.txt").exists()


def test_failed_export_leaves_nothing(tmp_path):
    runtime = Runtime(StepLog("export_asset"), tmp_path)
    with pytest.raises(EmptyFieldError, match="mesh_threshold"):
        export(blob_field(), CONFIG.model_copy(update={"mesh_threshold": 1e6}), runtime, "none")
    assert not list(tmp_path.iterdir())


def test_frames_and_cameras_follow_the_turntable(bundle):
    entries = json.loads((bundle.folder / "cameras.json").read_text())
    cameras = Cameras.from_json(entries)
    assert torch.allclose(cameras.camera_to_world, turntable_cameras().camera_to_world, atol=1e-5)
    frame = np.asarray(Image.open(bundle.folder / entries[9]["file"]))
    assert frame.shape == (64, 64, 3)
    assert (frame[0, 0] >= 250).all() and frame[32, 32].min() < 200, "a subject on white"


def test_film_decodes_back_to_the_frames(tmp_path):
    ramp = torch.linspace(0.1, 0.9, 36)[:, None, None, None].expand(36, 3, 33, 48)
    assert write_film(ramp, tmp_path / "film.mp4", 12) == "libx264"
    film = np.stack([frame for frame in imageio.get_reader(tmp_path / "film.mp4", format="FFMPEG")])  # noqa: C416 - its length is inf
    assert film.shape == (36, 34, 48, 3)
    assert film.mean(axis=(1, 2, 3)) / 255 == pytest.approx(ramp.mean(dim=(1, 2, 3)).numpy(), abs=0.02)
    assert b"avc1" in (tmp_path / "film.mp4").read_bytes()


def test_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(turntable.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DreamBooth3DError, match="pip install"):
        write_film(torch.ones(2, 3, 8, 8), tmp_path / "film.mp4", 12)


def test_frame_files_keep_their_order_and_pixels(tmp_path):
    frames = torch.arange(36)[:, None, None, None].expand(36, 3, 4, 4) / 255
    write_frames(frames, turntable_cameras(), tmp_path)
    values = [np.asarray(Image.open(path))[0, 0, 0] for path in sorted((tmp_path / "frames").iterdir())]
    assert values == list(range(36))


def test_page_is_self_contained(bundle):
    page = (bundle.folder / "asset.html").read_text()
    text = re.sub(r"base64,[A-Za-z0-9+/=]+|\"content\": \"[^\"]+\"|^//.*$", "", page)
    assert not re.search(r"(https?:)?//[a-z]", text)
    assert not re.search(r"<(link|iframe|img)\b|\bsrc=|fetch\(|import\(", page)
    assert len(page) < 3e6
    assert "A &lt;b&gt;blob&lt;/b&gt; &amp; {{data}}" in page and "21.2 dB" in page


def test_page_holds_the_mesh(bundle):
    page = (bundle.folder / "asset.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))
    assert data["turntable"]["count"] == 36
    content = base64.b64decode(data["files"]["asset.glb"]["content"])
    shown = trimesh.load(io.BytesIO(content), file_type="glb").to_geometry()
    assert len(shown.faces) == bundle.record.metrics["mesh_faces"]
    for name, file in data["files"].items():
        assert base64.b64decode(file["content"]) == (bundle.folder / name).read_bytes()
    assert set(data["files"]) == {"asset.glb", "turntable.mp4"}


def test_large_mesh_is_shown_coarser(tmp_path):
    runtime = Runtime(StepLog("export_asset"), tmp_path)
    config = CONFIG.model_copy(update={"mesh_resolution": 64, "page_limit_mb": 0.2, "max_triangles": 8000})
    result = export(blob_field(), config, runtime, "small page")
    assert (result.folder / "asset.html").stat().st_size < 0.21e6 < (result.folder / "asset.glb").stat().st_size
