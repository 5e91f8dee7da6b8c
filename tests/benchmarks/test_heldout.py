"""Each photo of a folder left out in turn: real stages on tiny models, and what is kept and written of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.heldout import __main__ as command
from benchmarks.heldout import report, runs
from benchmarks.heldout.runs import Finished, Leaving
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.evaluation import registration
from tests.coarse import search_coarsely
from tests.evaluation.stand_ins import write_tiny_clip
from tests.photos.test_held_out import masked_set
from tests.tiny_configs import shrunk
from tests.tiny_models import write_tiny_base_model

METRICS = {"heldout_photo_iou": 0.5, "heldout_photo_psnr_fg": 12.0, "heldout_photo_psnr_fg_mean": 10.0}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four masked photos, and everything else so small that a run takes seconds."""
    models = write_tiny_base_model(tmp_path / "base"), *(write_tiny_clip(tmp_path / name) for name in ("s", "j"))
    original = Leaving.config

    def config(self: Leaving) -> TrainingConfig:
        return shrunk(original(self), *models)

    monkeypatch.setattr(Leaving, "config", config)
    monkeypatch.setattr(registration, "ROUNDS", ((16, 1, 1),))
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "cache"))
    search_coarsely(monkeypatch)
    return masked_set(tmp_path / "rex", 4)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["heldout", *arguments])
    return command.main()


@pytest.mark.slow
def test_each_photo_is_left_out_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []
    original = runs.recipe.run

    def counted(config, run_stage):
        made = original(config, run_stage)
        trained.append((made.photos.facts["file"].tolist(), made.photos.held_out.facts["file"].tolist()))
        return made

    monkeypatch.setattr(runs.recipe, "run", counted)
    given = (str(tiny), "--quick", "--results", str(tmp_path / "kept"))
    assert run(monkeypatch, *given, "--photos", "01.png") == 0
    assert run(monkeypatch, *given, "--photos", "01.png", "03.png") == 0
    assert trained == [
        (["00.png", "02.png", "03.png"], ["01.png"]),
        (["00.png", "01.png", "02.png"], ["03.png"]),
    ], "what is finished is not run again"
    kept = json.loads((tmp_path / "kept" / "03.png.json").read_text())
    assert set(METRICS) <= set(kept["metrics"]) and kept["photos"] == 3
    text = (tmp_path / "kept" / "heldout_rex_quick.md").read_text()
    assert "| 01.png | " in text and "| mean | " in text and str(tmp_path) not in text
    assert (tmp_path / "kept" / "heldout_rex_quick.png").is_file()
    assert "FAILED" not in capsys.readouterr().out


def test_other_photos_or_settings_are_another_run(tiny: Path, tmp_path: Path) -> None:
    one = Leaving("01.png", str(tiny), None, quick=True)
    finished = Finished(tmp_path / "kept")
    finished.save(one, {"metrics": METRICS}, None)
    assert finished.load(one) is not None and finished.picture(one) is None
    assert finished.load(Leaving("01.png", str(tiny), None, quick=True, seed=1)) is None
    (tiny / "01_mask.png").unlink()
    assert finished.load(one) is None


def test_bad_input_is_one_sentence(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, str(tiny), "--quick", "--photos", "x.png") == 1
    assert "there is no photo x.png. There are 00.png" in capsys.readouterr().err
    for name in ("02.png", "02_mask.png"):
        (tiny / name).unlink()
    assert run(monkeypatch, str(tiny), "--quick") == 1
    assert "keeps 1 of 3 photos from training, and at least 3 must remain" in capsys.readouterr().err


def test_the_table_says_why_a_photo_is_not_compared() -> None:
    kept = {"metrics": METRICS, "located": 3, "photos": 4}
    rows = report.table([("a.png", kept), ("b.png", kept | {"metrics": {}}), ("c.png", None)]).splitlines()[2:]
    assert rows == [
        "| a.png | 0.50 | 12.0 | 10.0 | +2.0 | 3 of 4 |",
        "| b.png | its mask is not trusted | | | | 3 of 4 |",
        "| c.png | not run | | | |  |",
        "| mean | 0.50 | 12.0 | 10.0 | +2.0 | |",
    ]


def test_the_sheet_has_a_column_per_photo() -> None:
    whole, without_mean = torch.rand(3, 24, 8), torch.rand(3, 16, 8)
    one, two = report.sheet([whole]), report.sheet([whole, None, without_mean])
    assert one is not None and two is not None
    assert two.shape[1] == one.shape[1] and two.shape[2] > one.shape[2]
    assert report.sheet([None]) is None


def test_no_orchestrator_and_no_tracker_is_loaded() -> None:
    code = "import sys, benchmarks.heldout.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded and not {"zenml", "mlflow"} & set(loaded)
