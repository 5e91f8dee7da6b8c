"""MLflow's own pages in a browser: the right view, a row that says what it is, and its picture."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
from mlflow.tracking import MlflowClient
from PIL import Image

from dreambooth3d.artifacts import AssetBundle
from operations.records import note
from operations.records.pictures import log_strip
from operations.records.row import VIEW, Origin
from tests.browser import needs_browser
from website.mlflow_pages import served, shoot


@needs_browser
def test_a_row_is_shown_as_what_it_is(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        experiment = mlflow.create_experiment("dreambooth3d", artifact_location=str(tmp_path / "files"))
        with mlflow.start_run(experiment_id=experiment) as run:
            row, origin = run.info.run_id, Origin("run-1", "dreambooth3d", "demo", "abc", "corgi")
            MlflowClient().update_run(row, name=origin.shown(row))
            (tmp_path / "frames").mkdir()
            for name in (names := tuple(f"frames/{index:03d}.png" for index in range(36))):
                Image.new("RGB", (256, 256), (230, 25, 25)).save(tmp_path / name)
            assert log_strip(AssetBundle(tmp_path, names))
            text = note.of_asset(row, "run-1", {"evaluate/psnr_fg": 25.3}, "completed", shown=True)
            note.write(MlflowClient(), row, text)
    finally:
        mlflow.set_tracking_uri(before)
    pages = {
        "list": (f"#/experiments/{experiment}/runs?{VIEW}", origin.shown(row)),
        "run": (f"#/experiments/{experiment}/runs/{row}?{VIEW}", "psnr_fg 25.3 dB"),
    }
    with served(uri) as base:
        files = list(shoot(base, pages, tmp_path / "pictures"))
    assert [file.name for file in files] == ["list.webp", "run.webp"]
    with Image.open(files[1]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    red = (pixels[..., 0] > 180) & (pixels[..., 1:] < 80).all(-1)
    assert red.sum() > 1000, "the description shows the turntable"
