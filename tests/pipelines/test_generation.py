"""An asset from a prompt alone, through its real front doors: a whole run, its row and files, guides, bad input."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from dreambooth3d.cli.generate import preset_file, presets
from dreambooth3d.errors import ConfigError
from operations.launch.checking import list_problems
from tests.product import TINY, ZENML, Product, make_product

STEPS = ("read_prompt", "read_guide", "init_nerf", "refine_nerf", "evaluate_prompt", "export_asset")
PROMPT = "a photo of a red dog"
REFINE = {name: TINY["refine_nerf"][name] for name in ("steps", "views_per_step", "check_every", "render")}
PARAMETERS = {name: TINY[name] for name in ("seed", "device", "base_model", "scorers", "init_nerf", "export_asset")} | {
    "generation": {"prompt": "a photo of a blue cat", "negative_prompt": "a green clock", "refine": True},
    "refine_nerf": REFINE,
    "evaluate": {**TINY["evaluate"], "true_subjects": 1},
}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A product whose preset sds is tiny."""
    made = make_product(tmp_path_factory.mktemp("generation"))
    (made.root / "configs" / "text_to_3d.yaml").write_text(yaml.safe_dump({"parameters": PARAMETERS}))
    result = made.dreambooth3d("setup")
    assert result.returncode == 0, result.stderr
    return made


def client(product: Product) -> MlflowClient:
    (database,) = (product.root / ".zenconfig").rglob("mlflow.db")
    return MlflowClient(f"sqlite:///{database}")


def newest_row(product: Product) -> Run:
    mlflow = client(product)
    experiment = mlflow.get_experiment_by_name("dreambooth3d-generation")
    return mlflow.search_runs([experiment.experiment_id])[0]


@pytest.fixture(scope="module")
def generated(product: Product) -> tuple[subprocess.CompletedProcess[str], Run]:
    """A whole run by the console script, and its row."""
    result = product.dreambooth3d("generate", PROMPT, "refine_nerf.steps=2")
    assert result.returncode == 0, result.stderr[-3000:]
    return result, newest_row(product)


def test_its_row_is_complete(generated: tuple[subprocess.CompletedProcess[str], Run]) -> None:
    result, row = generated
    metrics, params, tags = row.data.metrics, row.data.params, row.data.tags
    assert {f"steps/seconds/{step}" for step in STEPS} <= {*metrics}
    assert "guards/clip_i_trips" not in "".join(metrics) and "init_nerf/guards/janus_trips" in metrics
    assert metrics["init_nerf/steps"] == 4 and metrics["refine_nerf/steps"] == 2
    assert 0 <= metrics["evaluate_prompt/r_precision"] <= 1 and "evaluate_prompt/janus_excess" in metrics
    assert params["generation.prompt"] == params["read_prompt.prompt"] == PROMPT
    assert params["generation.negative_prompt"] == "a green clock" and params["generation.guide"] == "base"
    assert "photos.subject" not in params and not row.inputs.dataset_inputs
    assert tags["preset"] == "text_to_3d" and tags["status"] == "completed" and tags["subject"] == "a red dog"
    assert PROMPT in result.stdout and "r_precision" in result.stdout


def test_its_results_lie_where_they_are_looked_for(
    product: Product, generated: tuple[subprocess.CompletedProcess[str], Run]
) -> None:
    _, row = generated
    folder = product.root / "outputs" / row.data.tags["zenml.pipeline_run"]
    for name in ("asset.glb", "asset.html", "turntable.mp4", "six_views.png", "comparison.png", "frames/035.png"):
        assert (folder / name).stat().st_size > 0
    assert PROMPT in (folder / "asset.html").read_text()
    assert "evaluate_prompt" not in json.loads((folder / "report.json").read_text())["metrics"]
    shown = json.loads(product.dreambooth3d("runs", "show", row.data.tags["zenml.pipeline_run"], "--json").stdout)
    assert shown["metrics"]["evaluate_prompt/clip_t"] == row.data.metrics["evaluate_prompt/clip_t"]
    versions = client(product).search_model_versions("name='dreambooth3d-a red dog'")
    assert [version.run_id for version in versions] == [row.info.run_id]


def test_the_same_again_comes_from_the_cache_and_another_prompt_keeps_the_guide(
    product: Product, generated: tuple[subprocess.CompletedProcess[str], Run]
) -> None:
    _, first = generated
    command = (ZENML, "pipeline", "run", "pipelines.generation.text_to_3d", "--config")
    result = product.run_warm(*command, "configs/text_to_3d.yaml")
    assert result.returncode == 0, result.stderr[-3000:]
    row = newest_row(product)
    assert row.data.params["generation.prompt"] == "a photo of a blue cat" and row.data.tags["subject"] == "a blue cat"
    cached = {step: row.data.metrics[f"steps/cached/{step}"] for step in STEPS}
    assert cached == {step: float(step == "read_guide") for step in STEPS}
    again = product.dreambooth3d("generate", PROMPT, "refine_nerf.steps=2")
    assert again.returncode == 0, again.stderr[-3000:]
    row = newest_row(product)
    assert all(row.data.metrics[f"steps/cached/{step}"] for step in STEPS)
    assert row.data.metrics["evaluate_prompt/clip_t"] == first.data.metrics["evaluate_prompt/clip_t"]


@pytest.mark.slow
def test_the_checkpoint_of_a_run_and_a_folder_guide(product: Product) -> None:
    """The run's own checkpoint is the artifact that the step takes; written out it is the same guide."""
    quick = {"recipe": {"pseudo_views": False, "multiview": False, "refine_with": "none"}}
    trained = product.train(product.write_config("quick", **quick))
    assert trained.returncode == 0, trained.stderr[-3000:]
    asked = ("generate", "a photo of a red sks dog", "generation.refine=false", "--guide")
    by_run = product.dreambooth3d(*asked, "run:latest/full")
    assert by_run.returncode == 0, by_run.stderr[-3000:]
    first = newest_row(product)
    assert "steps/seconds/read_guide" not in first.data.metrics
    assert first.data.params["generation.guide"] == "run:latest/full"
    (experiment,) = [found for found in client(product).search_experiments() if found.name == "dreambooth3d"]
    name = client(product).search_runs([experiment.experiment_id])[0].data.tags["zenml.pipeline_run"]
    exported = product.dreambooth3d("checkpoint", "export", name, "mine", "--which", "full")
    assert exported.returncode == 0, exported.stderr[-3000:]
    by_folder = product.dreambooth3d(*asked, "mine")
    assert by_folder.returncode == 0, by_folder.stderr[-3000:]
    second = newest_row(product)
    for metric in ("evaluate_prompt/clip_t", "init_nerf/opacity"):
        assert second.data.metrics[metric] == pytest.approx(first.data.metrics[metric], rel=1e-3)


Refused = Callable[..., str]


@pytest.fixture
def refused(product: Product) -> Refused:
    """The one sentence with which a generation is refused before anything is written."""

    def run(*arguments: str) -> str:
        before = product.files()
        result = product.dreambooth3d("generate", *arguments)
        assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
        (line,) = result.stderr.strip().splitlines()
        assert product.files() == before
        return line

    return run


def test_bad_input_is_one_sentence(refused: Refused, product: Product) -> None:
    assert "parameters.generation.prompt: is empty. Give it a value" in refused("  ")
    unknown = refused("a photo of a red poodle")
    assert "generation.prompt: the base model does not know the word 'poodle'. Nearest to it: dog" in unknown
    both = refused(PROMPT, "photos.subject=corgi")
    assert "parameters.photos: photos and generation exclude each other. Remove photos" in both
    assert "generation.guide: there is no nowhere" in refused(PROMPT, "--guide", "nowhere")
    assert "run" in refused(PROMPT, "--guide", "run:nobody")
    assert "generation.guide: run:latest/best names no checkpoint" in refused(PROMPT, "--guide", "run:latest/best")
    assert "there is no preset 'magic'. Choose one of sds, fantasia3d" in refused(PROMPT, "--preset", "magic")
    assert "photos and generation exclude each other" in refused(PROMPT, "--preset", product.write_config())
    assert "unknown key, did you mean prompt?" in refused(PROMPT, "generation.promt=x")


def test_a_training_is_told_apart(product: Product) -> None:
    result = product.dreambooth3d("train", "configs/text_to_3d.yaml")
    assert result.returncode == 1
    assert "is for a prompt alone. Start it with `dreambooth3d generate '" in result.stderr


def test_the_presets_are_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(iter(presets())) == "sds" and {"hifa", "latent", "paint", "sdf", "sjc", "sketch"} < {*presets()}
    assert all(file.exists() for file in presets().values())
    assert preset_file("sjc") == Path("configs/text_to_3d_sjc.yaml") and preset_file("my.yaml") == Path("my.yaml")
    with pytest.raises(ConfigError, match="there is no preset 'x'"):
        preset_file("x")


def test_a_prompt_s_spaces_do_not_count_and_no_photos_are_taken() -> None:
    values = {"parameters": {"generation": {"prompt": " a photo\n of a  dog "}}}
    assert list_problems(values) == []
    from operations.launch.checking import parse_parameters

    assert parse_parameters(values["parameters"]).generation.prompt == "a photo of a dog"
