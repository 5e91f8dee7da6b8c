"""The real pipeline, a few steps of everything, through ZenML's real local stack: rows, cache, summary, errors."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs
from uuid import UUID

import pytest
import torch
import trimesh
from diffusers import StableDiffusionPipeline
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from dreambooth3d.glossary import metric
from tests.hub_server import running_hub
from tests.product import FRONT_DOOR, TINY, Product, make_product

STEPS = (
    "validate_photos",
    "finetune_dreambooth",
    "select_checkpoints",
    "init_nerf",
    "generate_pseudo_views",
    "finetune_multiview",
    "refine_nerf",
    "evaluate",
    "export_asset",
)
# Notes who opens files of the judge; Python imports this by itself.
WATCH_THE_JUDGE = """
import sys
def watch(event, arguments):
    if event == "open" and "models/judge" in str(arguments[0]):
        frame, who = sys._getframe(1), "unknown"
        while frame is not None and who == "unknown":
            file = frame.f_code.co_filename
            if file.endswith("/dreambooth3d/stages.py"):
                who = frame.f_code.co_name
            elif file.endswith(("/dreambooth3d/recipe.py", "/launch/identity.py", "/launch/preflight.py")):
                who = file
            frame = frame.f_back
        with open("{log}", "a") as log:
            log.write(who + chr(10))
sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Outcome:
    """One run of the front door, and its row."""

    result: subprocess.CompletedProcess[str]
    row: Run


def tracker(product: Product) -> MlflowClient:
    """The product's MLflow."""
    (database,) = (product.root / ".zenconfig").rglob("mlflow.db")
    return MlflowClient(f"sqlite:///{database}")


def train(product: Product, config: str) -> Outcome:
    """Run a preset to its end."""
    return outcome(product, product.train(config))


def outcome(product: Product, result: subprocess.CompletedProcess[str]) -> Outcome:
    """A run that has come to its end, and its row."""
    assert result.returncode == 0, result.stderr[-3000:]
    client = tracker(product)
    experiment = client.get_experiment_by_name("dreambooth3d")
    return Outcome(result, client.search_runs([experiment.experiment_id], order_by=["start_time DESC"])[0])


def leave_work(product: Product, step: str, files: Sequence[str]) -> None:
    """The lock of a stored step, and its work folder where it has files, as of a process that was killed then."""
    (database,) = (product.root / ".zenconfig").rglob("zenml.db")
    with closing(sqlite3.connect(database)) as connection:
        ((step_run,),) = connection.execute("select id from step_run where name = ?", (step,))
    folder = product.root / ".dreambooth3d" / "work" / f"{step}-0123456789abcdef"
    folder.with_name(f"{folder.name}.lock").write_text(json.dumps({"run": "killed", "step_run": str(UUID(step_run))}))
    for name in files:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A product of its own, whose judge is watched."""
    made = make_product(tmp_path_factory.mktemp("run"))
    (made.root / "sitecustomize.py").write_text(WATCH_THE_JUDGE.replace("{log}", str(made.home / "judge.log")))
    assert made.dreambooth3d("setup").returncode == 0
    made.write_config()
    return made


@pytest.fixture(scope="module")
def first(product: Product) -> Outcome:
    """The first run, in a process that has imported nothing before."""
    return outcome(product, product.run(*FRONT_DOOR, "configs/tiny.yaml"))


@pytest.fixture(scope="module")
def second(product: Product, first: Outcome) -> Outcome:
    """The same again, after the first one's row was deleted, beside what a kill may have left of two of its steps."""
    tracker(product).delete_run(first.row.info.run_id)
    leave_work(product, "init_nerf", ("state.json",))
    leave_work(product, "evaluate", ())
    return train(product, "configs/tiny.yaml")


def test_row_is_complete(product: Product, first: Outcome) -> None:
    data = first.row.data
    for step in STEPS:
        assert data.metrics[f"steps/seconds/{step}"] > 0
        assert data.metrics[f"steps/cached/{step}"] == 0
    names = "psnr psnr_fg ssim mask_iou clip_i clip_t r_precision janus_excess front_recall"
    for name in names.split():
        assert f"evaluate/{name}" in data.metrics
    assert "evaluate_baseline_mean/psnr_fg" in data.metrics
    assert data.params["init_nerf.steps"] == "4"
    assert data.params["init_nerf.guidance.weighting"] == "sds"
    assert data.params["finetune_dreambooth.base_model"].startswith("sha256:")
    assert data.tags["subject"] == "corgi"
    assert data.tags["preset"] == "tiny"
    assert data.tags["data.dvc_md5"].endswith(".dir")
    assert data.tags["git.commit"] == "unknown"
    assert data.tags["status"] == "completed"


def test_a_row_says_what_it_is(product: Product, second: Outcome) -> None:
    """In MLflow's list, on its own page, and by a name that a command takes."""
    client, row = tracker(product), second.row
    assert row.info.run_name == f"corgi · tiny · {row.info.run_id[:4]}"
    shown = json.loads(product.dreambooth3d("runs", "show", str(row.info.run_name), "--json").stdout)
    assert shown["run"] == row.data.tags["zenml.pipeline_run"]
    note = row.data.tags["mlflow.note.content"]
    picture = parse_qs(re.search(r"get-artifact\?(\S+)\)", note)[1])
    assert picture["run_uuid"] == [row.info.run_id]
    files = [file.path for file in client.list_artifacts(row.info.run_id, "pictures")]
    assert picture["path"][0] in files and f"{row.data.metrics['evaluate/clip_i']:.3g}" in note
    experiment = client.get_experiment_by_name("dreambooth3d")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_best_checkpoint_is_found_among_the_models(product: Product, first: Outcome, second: Outcome) -> None:
    client = tracker(product)
    experiment = client.get_experiment_by_name("dreambooth3d").experiment_id
    order = [{"field_name": "metrics.scores/subject_similarity", "ascending": False}]
    found = client.search_logged_models([experiment], order_by=order)
    models = [model for model in found if model.source_run_id == second.row.info.run_id and model.name != "asset_model"]
    assert [model.model_type for model in models] == ["dreambooth-checkpoint"] * 2
    history = client.get_metric_history(second.row.info.run_id, "select_checkpoints/subject_similarity")
    best = max((point for point in history if point.step), key=lambda point: point.value)
    assert models[0].name == f"checkpoint_{best.step}" and models[0].params["step"] == str(best.step)
    chosen = {which for model in models for which in model.tags["chosen"].split(", ")}
    assert {"partial", "full"} <= chosen


def test_photos_are_the_dataset(first: Outcome) -> None:
    (entry,) = first.row.inputs.dataset_inputs
    assert entry.dataset.name == "corgi"
    assert entry.dataset.digest == first.row.data.tags["data.dvc_md5"]


def test_series_and_pictures(product: Product, first: Outcome) -> None:
    client = tracker(product)
    history = client.get_metric_history(first.row.info.run_id, "finetune_dreambooth/loss")
    assert {point.step for point in history} <= {1, 2, 3, 4}
    assert history
    # Each point once, although it is sent live and stands in the record.
    assert len({point.step for point in history}) == len(history)
    shown = ("validate_photos_photos", "select_checkpoints_contact_sheet", "generate_pseudo_views_before_after",
             "init_nerf_previews", "evaluate_comparison", "export_asset_turntable", "asset")  # fmt: skip
    files = [Path(file.path).name for file in client.list_artifacts(first.row.info.run_id, "pictures")]
    assert {f"{name}.png" for name in shown} <= {*files} and len(files) == len({*files})
    images = client.list_artifacts(first.row.info.run_id, "images")
    grid = {tuple(Path(file.path).name.split("+")[:3]) for file in images}
    assert ("init_nerf~growth", "step", "4") in grid and ("refine_nerf~growth", "step", "3") in grid
    assert {Path(file.path).name for file in client.list_artifacts(first.row.info.run_id, "asset")} >= {
        "asset.html",
        "turntable.mp4",
    }


def test_one_row_per_run(product: Product, second: Outcome) -> None:
    client = tracker(product)
    experiment = client.get_experiment_by_name("dreambooth3d")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_second_run_is_cached_with_an_equal_row(first: Outcome, second: Outcome) -> None:
    for step in STEPS:
        assert second.row.data.metrics[f"steps/cached/{step}"] == 1
    ours = {key: value for key, value in first.row.data.metrics.items() if not key.startswith("steps/cached/")}
    assert ours == {key: value for key, value in second.row.data.metrics.items() if not key.startswith("steps/cached/")}
    assert first.row.data.params == second.row.data.params
    different = {"zenml.pipeline_run", "mlflow.runName", "mlflow.loggedModels", "mlflow.note.content"}
    tags = [{k: v for k, v in run.row.data.tags.items() if k not in different} for run in (first, second)]
    assert tags[0] == tags[1]
    assert second.row.inputs.dataset_inputs[0].dataset.digest == first.row.inputs.dataset_inputs[0].dataset.digest


def test_replayed_series_are_equal(product: Product, first: Outcome, second: Outcome) -> None:
    client = tracker(product)
    for key in ("finetune_dreambooth/loss", "init_nerf/loss"):
        histories = [
            [(point.step, point.value) for point in client.get_metric_history(run.row.info.run_id, key)]
            for run in (first, second)
        ]
        assert sorted(histories[0]) == sorted(histories[1])

    def pictures(run: Outcome) -> set[str]:
        return {file.path.split("+")[0] for file in client.list_artifacts(run.row.info.run_id, "images")}

    assert pictures(first) == pictures(second)


def test_summary(product: Product, second: Outcome) -> None:
    text = second.result.stdout
    parts = ("psnr_fg", "mean image", "coarse", "init_nerf", "from the cache", "asset.glb", "turntable.mp4")
    for part in (*parts, "mlflow ui"):
        assert part in text
    folder = product.root / "outputs" / second.row.data.tags["zenml.pipeline_run"]
    assert (folder / "asset.html").is_file()
    assert len(list((folder / "frames").glob("*.png"))) == 36


def test_the_report_is_written_shown_and_kept(product: Product, second: Outcome, tmp_path: Path) -> None:
    """In the folder of results, in MLflow, as a visualisation of ZenML, and on request."""
    name, client = second.row.data.tags["zenml.pipeline_run"], tracker(product)
    page = (product.root / "outputs" / name / "report.html").read_text()
    for text in (name, "00.jpg", "<svg", "select_checkpoints", "finetune_dreambooth", "first asset", "mean image"):
        assert text in page, text
    kept = client.download_artifacts(second.row.info.run_id, "report.html", str(tmp_path))
    assert Path(kept).read_text() == page
    shown = (
        "from zenml.client import Client;"
        f"(found,) = Client().get_pipeline_run('{name}').steps['publish'].outputs['run_report'];"
        "print('seen:', [(each.type.value, open(each.uri).read() == found.load()) for each in found.visualizations])"
    )
    assert "seen: [('html', True)]" in product.run("-c", shown).stdout
    asked = product.dreambooth3d("runs", "show", name, "--html", str(tmp_path / "asked.html"))
    assert asked.returncode == 0, asked.stderr
    again = (tmp_path / "asked.html").read_text()
    assert again.count("data:image/jpeg") == page.count("data:image/jpeg") > 10


def test_every_figure_is_in_the_glossary(second: Outcome) -> None:
    assert [key for key in second.row.data.metrics if metric(key) is None] == []


def test_show_as_json(product: Product, second: Outcome) -> None:
    result = product.dreambooth3d("runs", "show", "latest", "--json")
    values = json.loads(result.stdout)
    about = ["run", "status", "subject", "preset", "duration_s"]
    assert list(values) == [*about, "metrics", "params", "tags", "artifacts"]
    assert values["subject"] == "corgi"
    assert values["run"] == second.row.data.tags["zenml.pipeline_run"]
    assert values["status"] == "completed"
    assert 0 < values["duration_s"] < 30
    for what in ("asset", "turntable", "page", "frames", "cameras", "report"):
        assert Path(values["artifacts"][what]).exists()


def test_only_evaluate_opens_the_judge(product: Product, first: Outcome) -> None:
    opened = {Path(line).name for line in (product.home / "judge.log").read_text().splitlines()}
    # Before any stage runs, bytes are read for the digest, and files are looked at whether they are whole.
    assert "evaluate" in opened
    assert opened <= {"evaluate", "recipe.py", "identity.py", "preflight.py"}


def test_registered_model_renders(product: Product, second: Outcome) -> None:
    client = tracker(product)
    versions = client.search_model_versions("name='dreambooth3d-corgi'")
    newest = max(versions, key=lambda version: int(version.version))
    assert newest.tags["data.dvc_md5"] == second.row.data.tags["data.dvc_md5"]
    assert newest.tags["zenml.pipeline_run"] == second.row.data.tags["zenml.pipeline_run"]
    script = (
        "import mlflow, pandas as pd;"
        f"mlflow.set_tracking_uri('sqlite:///{next((product.root / '.zenconfig').rglob('mlflow.db'))}');"
        f"model = mlflow.pyfunc.load_model('models:/dreambooth3d-corgi/{newest.version}');"
        "print(model.predict(pd.DataFrame({'azimuth_deg': [0.0, 90.0], 'elevation_deg': [15.0, 15.0]})).shape)"
    )
    assert "(2, 3, 128, 128)" in product.run("-c", script).stdout


def test_work_folder_holds_no_finished_step(product: Product, first: Outcome) -> None:
    assert not steps_with_work(product)


def steps_with_work(product: Product) -> set[str]:
    return {path.name.split("-")[0] for path in (product.root / ".dreambooth3d" / "work").iterdir()} & set(STEPS)


def test_what_a_kill_has_left_of_stored_steps_goes_with_the_run_that_takes_them(
    product: Product, second: Outcome
) -> None:
    assert not steps_with_work(product)


def test_error_in_a_step_is_one_sentence(product: Product, second: Outcome) -> None:
    export = {"mesh_threshold": 1.0e9, "frame_size": 32, "frame_rays": 16, "samples_per_ray": 16, "mesh_resolution": 24}
    result = product.train(product.write_config("failing", export_asset=export))
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert json.loads(product.dreambooth3d("runs", "show", "latest", "--json").stdout)["status"] == "failed"


@pytest.mark.slow
@pytest.mark.slow
def test_real_photos_by_overrides_with_the_naive_recipe(product: Product, second: Outcome) -> None:
    """A folder outside of data/: no DVC hash, no ground truth, and the row says so; stages are left out."""
    (product.root / "mine").mkdir()
    for photo in sorted((product.root / "data" / "mallard").glob("*.jpg")):
        (product.root / "mine" / photo.name).write_bytes(photo.read_bytes())
    recipe = {"init_from": "full", "pseudo_views": False, "multiview": False, "refine_with": "none"}
    config = product.write_config("naive_tiny", recipe=recipe)
    result = product.dreambooth3d("train", config, "photos.dir=mine", "photos.class_noun=duck")
    assert result.returncode == 0, result.stderr[-3000:]
    values = json.loads(product.dreambooth3d("runs", "show", "latest", "--json").stdout)
    assert values["tags"]["data.dvc_md5"] == "untracked"
    assert values["tags"]["data.hash"].startswith("untracked:")
    assert values["tags"]["subject"] == "mine"
    assert values["tags"]["preset"] == "naive_tiny"
    metrics = values["metrics"]
    assert "evaluate/psnr" not in metrics
    assert "steps/seconds/refine_nerf" not in metrics
    assert metrics["evaluate/clip_i"] == metrics["evaluate_coarse/clip_i"]
    compared = product.dreambooth3d("runs", "compare", "latest", second.row.data.tags["zenml.pipeline_run"], "--json")
    assert json.loads(compared.stdout)["params"]["recipe.refine_with"]


def test_change_of_the_library_invalidates_its_steps_only(product: Product, second: Outcome) -> None:
    source = product.root / "dreambooth3d" / "export" / "mesh.py"
    source.write_text(source.read_text() + "\n# another version\n")
    metrics = train(product, "configs/tiny.yaml").row.data.metrics
    assert metrics["steps/cached/export_asset"] == 0
    assert metrics["steps/cached/evaluate"] == 1


def test_change_of_the_evaluation_distils_no_field_again(product: Product, second: Outcome) -> None:
    source = product.root / "dreambooth3d" / "evaluation" / "report.py"
    source.write_text(source.read_text() + "\n# another version\n")
    metrics = train(product, "configs/tiny.yaml").row.data.metrics
    assert metrics["steps/cached/evaluate"] == 0
    assert all(metrics[f"steps/cached/{step}"] == 1 for step in STEPS if step not in ("evaluate", "export_asset"))


@pytest.mark.slow
def test_interrupted_stage_goes_on_to_the_end_and_is_resumed(product: Product, second: Outcome) -> None:
    config = product.write_config("long", init_nerf={**TINY["init_nerf"], "steps": 3000})
    log = product.home / "long.log"
    with log.open("w") as output:
        process = product.start_training(config, output)
        while "init_nerf:" not in log.read_text() and process.poll() is None:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    values = json.loads(product.dreambooth3d("runs", "show", "latest", "--json").stdout)
    assert values["status"] == "interrupted"
    experiment = tracker(product).get_experiment_by_name("dreambooth3d").experiment_id
    named = f"tags.`zenml.pipeline_run` = '{values['run']}'"
    assert [row.info.status for row in tracker(product).search_runs([experiment], named)] == ["KILLED"]
    assert values["metrics"]["init_nerf/steps"] < 3000
    metrics = train(product, config).row.data.metrics
    assert metrics["steps/cached/init_nerf"] == 0
    assert metrics["init_nerf/steps"] == 3000


def test_checkpoints_are_exported(product: Product, second: Outcome, tmp_path: Path) -> None:
    name, full = second.row.data.tags["zenml.pipeline_run"], second.row.data.metrics["select_checkpoints/full_step"]
    for folder, options in (("full", ()), ("step", (f"--step={full:.0f}",))):
        result = product.dreambooth3d("checkpoint", "export", name, str(tmp_path / folder), *options)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == str(tmp_path / folder)
    chosen, by_step = (
        StableDiffusionPipeline.from_pretrained(tmp_path / folder).unet.state_dict() for folder in ("full", "step")
    )
    assert all(torch.equal(chosen[key], by_step[key]) for key in chosen)
    refused = product.dreambooth3d("checkpoint", "export", name, str(tmp_path / "lora"), "--lora")
    assert refused.returncode == 1 and "holds full weights and no LoRA" in refused.stderr
    missing = product.dreambooth3d("checkpoint", "export", name, str(tmp_path / "none"), "--step=3")
    assert missing.returncode == 1 and "Choose one of 0, 2, 4" in missing.stderr


def test_a_checkpoint_is_pushed_with_its_card(
    product: Product, second: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = second.row.data.tags["zenml.pipeline_run"]
    with running_hub(tmp_path / "cache", monkeypatch) as hub:
        hub.writers.add("hf_a")
        variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_a", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
        command = ("-m", "dreambooth3d.cli", "models", "push", "me/corgi", "--run", name)
        result = product.run(*command, **variables)
        assert result.returncode == 0, result.stderr
    pushed = hub.pushed / "me--corgi-0"
    StableDiffusionPipeline.from_pretrained(pushed)
    card = (pushed / "README.md").read_text()
    assert "*a photo of a sks dog*" in card and f"| run | {name} |" in card and "| photos |" in card
    assert hub.private == {"me/corgi"}


@pytest.mark.slow
def test_asset_is_exported_in_any_format(product: Product, second: Outcome, tmp_path: Path) -> None:
    name = second.row.data.tags["zenml.pipeline_run"]
    options = ("--format=glb,obj,ply", "--max-triangles=300", "--texture=64", "--metres=0.1")
    result = product.dreambooth3d("export", name, *options, f"--out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    names = ["asset.glb", "asset.mtl", "asset.obj", "asset.ply", "asset.png"]
    assert result.stdout.split() == [str(tmp_path / "out" / each) for each in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    surface = trimesh.load(tmp_path / "out" / "asset.glb")
    assert surface.extents.max() == pytest.approx(0.1, rel=1e-3)
    assert sum(len(geometry.faces) for geometry in surface.geometry.values()) <= 300
    assert name.encode() in (tmp_path / "out" / "asset.glb").read_bytes()
    (tmp_path / "file").touch()
    for arguments, sentence in (
        (("nobody",), "there is no such run"),
        ((name, "--format=stl"), "--format stl is unknown"),
        ((name, "--texture=3"), "texture_size"),
        ((name, f"--out={tmp_path / 'file' / 'below'}"), "cannot be written"),
        ((name, "--context=7", f"--out={tmp_path / 'new'}"), "has no context 7"),
    ):
        refused = product.dreambooth3d("export", *arguments)
        assert refused.returncode == 1 and sentence in refused.stderr and "Traceback" not in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_exported_checkpoints_are_taken_in_place_of_training(product: Product, second: Outcome, tmp_path: Path) -> None:
    for step in (2, 4):
        place = str(tmp_path / f"checkpoint-{step}")
        command = ("checkpoint", "export", second.row.data.tags["zenml.pipeline_run"], place, f"--step={step}")
        assert product.dreambooth3d(*command).returncode == 0
    settings = TINY["finetune_dreambooth"] | {"pretrained": str(tmp_path)}
    row = train(product, product.write_config("pretrained", finetune_dreambooth=settings)).row
    assert row.data.metrics["finetune_dreambooth/checkpoints"] == 2
    assert row.data.metrics["finetune_dreambooth/steps"] == 0
    # They are the same checkpoints, so everything after them comes out the same.
    for key in ("select_checkpoints/full_step", "evaluate/psnr", "evaluate/clip_i"):
        assert row.data.metrics[key] == second.row.data.metrics[key]


@pytest.mark.slow
def test_a_run_by_lora(product: Product, second: Outcome, tmp_path: Path) -> None:
    options = {"lora_rank": 2, "gradient_checkpointing": True, "ema_decay": 0.9}
    sections = {name: TINY[name] | options for name in ("finetune_dreambooth", "finetune_multiview")}
    name = train(product, product.write_config("lora", **sections)).row.data.tags["zenml.pipeline_run"]
    for which in ("partial", "multiview"):
        command = ("checkpoint", "export", name, str(tmp_path / which), "--which", which, "--lora")
        result = product.dreambooth3d(*command)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == str(tmp_path / which / "pytorch_lora_weights.safetensors")
        pipeline = StableDiffusionPipeline.from_pretrained(product.root / "models" / "tiny")
        pipeline.load_lora_weights(tmp_path / which)
        ranks = {min(weight.shape) for key, weight in pipeline.unet.state_dict().items() if "lora_" in key}
        assert ranks == {2 if which == "partial" else 4}


@pytest.mark.slow
def test_a_run_by_two_processes(product: Product, second: Outcome) -> None:
    """Fine-tuning by data parallelism, distillation with shared views; everything after them as usual."""
    sections = {name: TINY[name] | {"processes": 2} for name in ("finetune_dreambooth", "finetune_multiview")}
    for name in ("init_nerf", "refine_nerf"):
        sections[name] = TINY[name] | {"processes": 2, "views_per_step": 2}
    outcome = train(product, product.write_config("two_processes", **sections))
    found, usual = set(outcome.row.data.metrics), set(second.row.data.metrics)
    # How far a mirror fits is only measured where photos were found.
    assert {name for name in found ^ usual if "/mirror_" not in name} == set()
    assert outcome.row.data.params["init_nerf.processes"] == "2"


def test_a_file_on_top_of_a_preset_is_the_same_training(product: Product, second: Outcome) -> None:
    """Through the documented front door, from a folder of the user's own: all of it comes from the cache."""
    files = product.root / "files"
    files.mkdir()
    (files / "own.yaml").write_text("base: ../configs/tiny.yaml\n")
    row = train(product, "files/own.yaml").row
    assert row.data.tags["preset"] == "own"
    assert [step for step in STEPS if row.data.metrics[f"steps/cached/{step}"] != 1] == []
