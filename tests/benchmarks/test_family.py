"""The benchmark of assets from a prompt alone: its prompts, a whole quick run on the CPU, the report's figures."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.family import personalised, plan, report, validation
from benchmarks.family.__main__ import main
from benchmarks.quality import pool
from benchmarks.quality.plan import Run, load_config
from benchmarks.quality.results import Results
from benchmarks.quality.sources import Toybox
from benchmarks.quality.stages import Outcome
from dreambooth3d import recipe
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.in_process import InProcess
from dreambooth3d.toybox.recipes import COLOUR_NAMES, TRAINING_CLASSES
from operations.launch.checking import check_file
from tests.coarse import search_coarsely
from tests.evaluation.stand_ins import write_tiny_clip
from tests.tiny_configs import shrunk
from tests.tiny_models import write_tiny_base_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Base model, selector and judge."""
    folder = tmp_path_factory.mktemp("models")
    clips = (write_tiny_clip(folder / name, size=size) for name, size in (("selector", 32), ("judge", 24)))
    return (write_tiny_base_model(folder / "base"), *clips)


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
    assert (file.parent / "family_sds.webp").exists() and (file.parent / "family.webp").exists()
    assert "family_sjc.webp" in text


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("text_to_3d*.yaml")), ids=lambda file: file.stem)
def test_every_preset_of_a_generation_runs_at_a_tiny_size(
    file: Path, tiny_models: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_coarsely(monkeypatch)
    config = check_file(str(file))
    assert isinstance(config, TextTo3dConfig)
    generation = config.generation.model_copy(update={"prompt": "a photo of a red dog"})
    config = shrunk(config.model_copy(update={"generation": generation}), *tiny_models)
    # Three steps are too few for soft Gaussians to become solid.
    solid = config.init_nerf.gaussians.model_copy(update={"initial_opacity": 0.9})
    config = config.model_copy(update={"init_nerf": config.init_nerf.model_copy(update={"gaussians": solid})})
    made = recipe.generate(config, InProcess(tmp_path, torch.device("cpu"), progress=False))
    stages = [config.init_nerf, *([config.refine_nerf] if config.generation.refine else [])]
    kinds = [stage.representation for stage in stages if stage.representation is not None]
    assert made.asset.kind == kinds[-1] and made.coarse.kind == config.init_nerf.representation
    assert made.asset.steps == 3 * len(stages) and made.report.metrics["clip_t"] == pytest.approx(0, abs=1)
    assert (made.bundle.folder / "asset.glb").stat().st_size > 0 and (made.bundle.folder / "six_views.png").exists()


def test_the_personalised_figures_are_means_over_the_toybox(tmp_path: Path) -> None:
    """Of real photo sets as well, each below its own kind; what lies in the folder is reported, whoever asks."""
    prompts, subjects = Results(tmp_path / "results"), Results(tmp_path / "results" / "personalised")
    worse = {"field": 0.0, "mesh": 0.25, "gaussians": 1.0}
    runs = personalised.all_runs(("casual-bob", "studio-cow"), (0,))
    for run in runs:
        real, less = "-" in run.subject, worse[run.method.name]
        found = {"psnr_fg_aligned": 12.0 - less} if real else {"aligned/psnr_fg": 16.0 - less, "aligned/mask_iou": 0.9}
        found |= {
            "mesh/field_psnr": 30.0 - less,
            "mesh/field_iou": 0.98,
            "glb/errors": 0.0,
            "glb/warnings": float(real),
        }
        if run.key == "mesh-casual-bob-0":
            found |= {"glb/errors": 2.0, "glb/errors/ACCESSOR_NON_UNIT": 2.0}
        outcome = Outcome(
            found, {"init_nerf": 60.0, "refine_nerf": 30.0, "export_asset": 99.0, "evaluate": 99.0},
            {"init_nerf": 4096.0, "refine_nerf": 1024.0}, {}, torch.rand(4, 3, 16, 16),
        )  # fmt: skip
        subjects.save(run, outcome, {"machine": "m", "commit": "c", "date": "d", "side_by_side": "1 processes"})
    prompted = plan.all_runs(("sds",), plan.PROMPTS[:1])
    saved(prompts, prompted[0])
    report.write(prompted, prompts, tmp_path / "report", subjects)
    found = json.loads((tmp_path / "report" / "family.json").read_text())
    gaussians = found["personalised"]["gaussians"]
    assert gaussians["psnr_fg_aligned"] == 15.0 and gaussians["subjects"] == 8 and gaussians["seconds"] == 90.0
    assert gaussians["refinement_seconds"] == 30.0 and gaussians["refinement_peak_gib"] == 1.0
    assert gaussians["sets"]["casual"]["psnr_fg_aligned"] == gaussians["sets"]["studio"]["psnr_fg_aligned"] == 11.0
    glb = found["glb"]
    assert glb["psnr"] == 30.0 and glb["iou"] == 0.98 and glb["validator_errors"] == 0
    assert glb["validator_warnings"] == 2 and glb["kinds"]["mesh"]["psnr"] == 29.75
    assert found["text_to_3d"]["sds"]["r_precision"] == 1.0
    text = (tmp_path / "report" / "family.md").read_text()
    assert "| 0.25, met |" in text and "| 1.00, **not met** |" in text and "## From a prompt alone" in text
    assert "| casual-bob | 12.00 | 11.75 | 11.00 |" in text and glb["kinds"]["mesh"]["validator_errors"] == 2
    assert "- mesh, casual-bob, seed 0: ACCESSOR_NON_UNIT, 2 times" in text
    assert (tmp_path / "report" / "family_personalised_toybox.webp").exists()
    # A later call for prompts alone says the same of the photos.
    report.write([], prompts, tmp_path / "report", subjects)
    assert "| casual-bob | 12.00 | 11.75 | 11.00 |" in (tmp_path / "report" / "family.md").read_text()


def test_sources_of_personalised_runs() -> None:
    assert personalised.Sources(Path("anywhere"))("koi") == Toybox("koi")
    assert personalised.set_of("koi") == "toybox" and personalised.set_of("casual-bob") == "casual"


def test_real_photos_go_with_personalised(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for options, part in (
        (["--real", "x"], "--real goes with --personalised"),
        (["--only-real"], "needs --real FOLDER"),
    ):
        monkeypatch.setattr(sys, "argv", ["family", *options])
        with pytest.raises(SystemExit):
            main()
        assert part in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["family", "--personalised", "--quick", "--real", "nowhere"])
    assert main() == 1
    assert "nowhere: there is no such folder" in capsys.readouterr().err


def test_khronos_validator_counts_what_is_wrong(tmp_path: Path) -> None:
    """A file without any scene has errors; where the validator is not installed nothing is said."""
    broken = tmp_path / "asset.glb"
    broken.write_bytes(b"glTF" + (2).to_bytes(4, "little") + (12).to_bytes(4, "little"))
    found = validation.issues(broken)
    if not found:
        pytest.skip("Khronos' validator is not installed: `npm install --global gltf-validator`")
    assert found["errors"] > 0
    results, run = Results(tmp_path / "results"), personalised.all_runs(("casual-bob",), (0,))[0]
    results.save(run, Outcome({}, {}, {}, {}, torch.rand(4, 3, 8, 8), exported=tmp_path), {})
    broken.unlink()
    (validated,) = personalised.validated([run], results)
    assert validated["metrics"]["glb/errors"] == found["errors"]
    assert found["errors"] == sum(count for name, count in found.items() if name.startswith("errors/"))


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
