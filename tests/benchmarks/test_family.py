"""The benchmark of assets from a prompt alone: its prompts, a whole quick run on the CPU, the report's figures."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.family import plan, report
from benchmarks.family.__main__ import main
from benchmarks.quality import pool
from benchmarks.quality.plan import Run, load_config
from benchmarks.quality.results import Results
from benchmarks.quality.stages import Outcome
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.toybox.recipes import COLOUR_NAMES, TRAINING_CLASSES


def test_the_prompts_stay_the_same_and_name_every_class() -> None:
    assert plan.PROMPTS[:4] == ("pink_cat", "pink_fish", "yellow_can", "green_chair")
    assert len(set(plan.PROMPTS)) == 20 and plan.DEVELOPMENT_PROMPTS + plan.TEST_PROMPTS == plan.PROMPTS
    nouns = Counter(name.split("_")[1] for name in plan.PROMPTS)
    assert {*nouns} == {*TRAINING_CLASSES} and sorted(nouns.values()) == [1] * 16 + [2, 2]
    assert {name.split("_")[0] for name in plan.PROMPTS} <= {*COLOUR_NAMES}
    assert plan.prompt_of("red_snowman") == "a photo of a red snowman"


@pytest.mark.parametrize("name", plan.PRESETS)
def test_every_preset_asks_for_the_prompt_among_all(name: str) -> None:
    for quick in (False, True):
        config = load_config(plan.PRESETS[name], quick)
        assert isinstance(config, TextTo3dConfig)
        asked = plan.Prompted("green_boat").asked(config)
        assert asked.generation.prompt == "a photo of a green boat"
        assert len(asked.evaluate.captions) == 20 and asked.init_nerf == config.init_nerf


def test_prompts_and_presets_are_spread_over_the_processes() -> None:
    runs = plan.all_runs((), plan.PROMPTS)
    assert len(runs) == 20 * len(plan.PRESETS)
    assert [len(group) for group in pool.grouped(runs, 16)] == [1] * len(runs)


def saved(results: Results, run: Run, **metrics: float) -> None:
    outcome = Outcome(
        {"r_precision": 1.0, "janus_excess": 0.0, "front_recall": 1.0, **metrics},
        {"read_guide": 1.0, "init_nerf": 9.0, "evaluate_prompt": 100.0},
        {"init_nerf": 512.0, "evaluate_prompt": 4096.0},
        {},
        torch.rand(4, 3, 16, 16),
    )
    results.save(run, outcome, {"machine": "m", "commit": "c", "date": "d", "side_by_side": "1 processes"})


def test_the_report_s_figures_are_means_over_the_test_prompts(tmp_path: Path) -> None:
    """An asset's cost is without that of its evaluation, and what others have written stays."""
    runs, results = plan.all_runs(("sds", "sjc"), plan.PROMPTS), Results(tmp_path / "results")
    for run in runs:
        fails = run.subject in (*plan.DEVELOPMENT_PROMPTS, plan.TEST_PROMPTS[0])
        saved(results, run, r_precision=0.0 if fails else 1.0)
    file = tmp_path / "report" / "family.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"glb": {"psnr": 30.0}, "text_to_3d": {"mesh": {"r_precision": 0.9}, "sds": {}}}))
    report.write(runs, results, file.parent)
    found = json.loads(file.read_text())
    assert found["glb"] == {"psnr": 30.0} and found["text_to_3d"]["mesh"] == {"r_precision": 0.9}
    sds = found["text_to_3d"]["sds"]
    assert sds["r_precision"] == pytest.approx(15 / 16, abs=1e-5) and sds["prompts"] == 16
    assert sds["seconds"] == 10.0 and sds["peak_gib"] == 0.5 and sds["janus_excess"] == 0.0
    assert found["text_to_3d_all_prompts"]["sds"]["r_precision"] == pytest.approx(15 / 20)
    text = (file.parent / "family.md").read_text()
    assert "| R-precision at least 0.8 | 0.938, met | 0.938, met |" in text
    assert "| a photo of a pink cat | 0.00 | 0.00 | 1.00 | 0.00 | 0.00 | 1.00 |" in text
    assert (file.parent / "family_sds.webp").exists() and "family_sjc.webp" in text


def test_a_quick_run_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real models, few steps: an asset that is measured, kept, and not made again."""
    command = ["family", "--quick", "--presets", "sjc", "--results", str(tmp_path), "--commit", "abc"]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 0
    figures = json.loads((tmp_path / "family.json").read_text())["text_to_3d"]["sjc"]
    assert 0 <= figures["r_precision"] <= 1 and figures["clip_t"] > 0.1 and figures["front_recall_truth"] > 0.8
    kept = json.loads((tmp_path / "sjc-pink_cat-0.json").read_text())
    assert kept["commit"] == "abc" and {"read_guide", "init_nerf", "evaluate_prompt"} <= {*kept["seconds"]}
    assert "export_asset" not in kept["seconds"] and kept["notes"]["init_nerf/steps"] == 40

    def never(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(ClipScorer, "load", never)
    assert main() == 0


def test_an_unknown_prompt_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["family", "--prompts", "red_unicorn"])
    with pytest.raises(SystemExit):
        main()
    assert "red_unicorn is no prompt of this benchmark" in capsys.readouterr().err
