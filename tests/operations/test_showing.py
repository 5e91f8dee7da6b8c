"""What MLflow shows of a row: names of figures, pictures, descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

from dreambooth3d.artifacts import AssetBundle
from dreambooth3d.record import StepLog
from operations.records import keys, note
from operations.records.pictures import STRIP, log_pictures, log_strip, picture_file
from operations.records.row import Origin


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An active run in a tracker of its own."""
    before = mlflow.get_tracking_uri()
    folder = tmp_path_factory.mktemp("showing")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("showing", artifact_location=str(folder / "files"))
    with mlflow.start_run(experiment_id=experiment) as run:
        yield run.info.run_id
    mlflow.set_tracking_uri(before)


def test_what_people_compare_sorts_first() -> None:
    record = {
        "evaluate": ("psnr", "near/psnr", "coarse/psnr", "baseline_mean/psnr_fg", "seconds", "cached"),
        "init_nerf": ("gradient_norm", "guards/nan_trips", "seconds", "peak_memory_mib"),
        "export_asset": ("mesh/psnr",),
    }
    found = sorted(keys.metric_key(step, name) for step, names in record.items() for name in names)
    assert found == [
        "evaluate/psnr", "evaluate_baseline_mean/psnr_fg", "evaluate_coarse/psnr", "evaluate_near/psnr",
        "export_asset/mesh/psnr", "init_nerf/gradient_norm", "init_nerf/guards/nan_trips", "steps/cached/evaluate",
        "steps/peak_memory_mib/init_nerf", "steps/seconds/evaluate", "steps/seconds/init_nerf",
    ]  # fmt: skip


def test_rows_of_before_are_read_as_those_of_now() -> None:
    before = {"evaluate/psnr": 1.0, "evaluate/coarse/psnr": 2.0, "evaluate_context_0/cached": 1.0}
    before["refine_nerf/seconds"] = 3.0
    now = {"evaluate/psnr": 1.0, "evaluate_coarse/psnr": 2.0, "steps/cached/evaluate_context_0": 1.0}
    now["steps/seconds/refine_nerf"] = 3.0
    assert keys.current(before) == now == keys.current(now)


def test_figures_of_an_asset_are_read_back_from_its_row() -> None:
    """By the names that the steps gave them; those of contexts and of other steps are another asset's, or none."""
    record = {
        "evaluate": ("psnr", "near/psnr", "baseline_mean/psnr_fg", "seconds"), "evaluate_prompt": ("clip_t",),
        "evaluate_context_0": ("clip_t",), "init_nerf": ("psnr",), "export_asset": ("mesh/psnr", "glb_bytes"),
    }  # fmt: skip
    row = {keys.metric_key(step, name): float(len(name)) for step, names in record.items() for name in names}
    own = ("psnr", "near/psnr", "baseline_mean/psnr_fg", "clip_t", "mesh/psnr")
    assert keys.asset_figures(row) == {name: float(len(name)) for name in own}


def test_a_row_is_called_by_what_it_is_for() -> None:
    extra = {"preset": "demo", "git_commit": "abc"}
    assert Origin.of("run", "dreambooth3d", extra, "dreambooth3d-corgi").shown("3f2a91") == "corgi · demo · 3f2a"
    assert Origin.of("run", "retrain", {}, "").shown("3f2a91") == "retrain · 3f2a"
    assert "subject" not in Origin.of("run", "retrain", {}, "").tags()


def test_each_picture_is_one_file_and_a_series_plays(row: str) -> None:
    """Also when the record is sent again."""
    log = StepLog("init_nerf")
    for step in (0, 50, 100):
        log.image(f"growth/{step:06d}", torch.full((3, 8, 8), step / 100))
    log.image("previews", torch.full((3, 8, 8), 0.25))
    for _ in range(2):
        log_pictures(log.record())
    client = MlflowClient()
    names = [Path(file.path).name for file in client.list_artifacts(row, "images")]
    assert sorted(name.split("+")[2] for name in names if name.endswith(".png")) == ["0", "100", "50"]
    assert {name.split("+")[0] for name in names} == {"init_nerf~growth"}
    (single,) = client.list_artifacts(row, "pictures")
    assert single.path == picture_file("init_nerf", "previews") == "pictures/init_nerf_previews.png"
    with Image.open(client.download_artifacts(row, single.path)) as picture:
        assert picture.getpixel((3, 3)) == (64, 64, 64)


def test_the_descriptions_picture_fits_its_place(row: str, tmp_path: Path) -> None:
    """A red bar that grows from frame to frame stands in each view, without the white that is around it in all."""
    (tmp_path / "frames").mkdir()
    for index in range(36):
        frame = Image.new("RGB", (256, 256), "white")
        frame.paste((255, 0, 0), (100, 160 - index, 140, 200))
        frame.save(tmp_path / "frames" / f"{index:03d}.png")
    names = tuple(f"frames/{index:03d}.png" for index in range(36))
    assert not log_strip(AssetBundle(tmp_path, ("asset.glb",)))
    assert log_strip(AssetBundle(tmp_path, ("asset.glb", *names)))
    with Image.open(MlflowClient().download_artifacts(row, STRIP)) as picture:
        width, height = picture.size
        red = np.asarray(picture.convert("RGB"))[..., 1] < 128
    assert height <= 50 and width <= 640 and width % 8 == 0
    heights = red.reshape(height, 8, width // 8).any(2).sum(0)
    expected = (40 + np.array([0, 4, 9, 14, 18, 22, 27, 32])) * height / 72
    np.testing.assert_allclose(heights, expected, atol=1.5)
    assert red.any(0).all()


def test_a_description_replaces_a_failure_and_nothing_else(row: str) -> None:
    client = MlflowClient()

    def said() -> str:
        return client.get_run(row).data.tags[note.TAG]

    note.write(client, row, note.of_failure("init_nerf", "the field *became* empty <img src=x>\nsecond line"))
    assert said() == r"**Failed** in init\_nerf: the field \*became\* empty \<img src=x\> second line"
    figures = {"evaluate/psnr_fg": 25.314, "evaluate/clip_i": 0.8712}
    text = note.of_asset(row, "run-1", figures, "interrupted", shown=True)
    note.write(client, row, text)
    assert said() == text and "psnr\\_fg 25.3 dB, clip\\_i 0.871" in text and "stopped early" in text
    assert f"get-artifact?path=pictures%2Fasset.png&run_uuid={row}" in text
    note.write(client, row, "something else")
    assert said() == text
    client.set_tag(row, note.TAG, "a person's own words")
    note.write(client, row, text)
    assert said() == "a person's own words"
