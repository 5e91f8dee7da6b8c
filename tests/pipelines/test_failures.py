"""A failure in each step of the training pipeline and in each part of `publish`: a failed run is never a good one.

A tracker that is away, and another run that computes the same, are no failures. All runs are in this process: the steps
before the failure come from the cache of the first.
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc  # MLflow loads it late, in place of a stand-in
import pytest
import yaml
from mlflow.entities import Run
from typer.testing import CliRunner
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
from zenml.orchestrators import cache_utils
from zenml.utils.source_utils import set_custom_source_root

import steps
from dreambooth3d.cli.main import app
from dreambooth3d.cli.setup import pull_photos
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.locks import FolderLock
from dreambooth3d.runtime import work_root
from operations.records import patience, publishing, rows, tracking
from operations.registry import registration
from operations.registry.promotion import candidate, production, promote
from operations.registry.versions import read
from tests.coarse import search_coarsely
from tests.pipelines.registries import own_registries, seen_by_readers, short_locks
from tests.product import ROOT, TINY, make_product
from tests.timing import untimed

SUBJECT = "corgi"
NO_SEARCH = {"photos": {"weight": 0.0}}
CONFIG = TINY | {
    "init_nerf": TINY["init_nerf"] | NO_SEARCH | {"steps": 2},
    "refine_nerf": TINY["refine_nerf"] | NO_SEARCH | {"steps": 2},
    "edit_nerf": {name: TINY["refine_nerf"][name] for name in ("steps", "views_per_step", "check_every", "render")},
    "contexts": ["a photo of a red sks dog"],
}
# Names in the pipeline; the last step is tried part by part.
STEPS = {
    **{
        name: getattr(steps, name)
        for name in (
            "validate_photos", "finetune_dreambooth", "select_checkpoints", "init_nerf", "generate_pseudo_views",
            "finetune_multiview", "refine_nerf", "load_ground_truth", "evaluate", "export_asset",
        )
    },
    "edit_nerf_0": steps.edit_nerf,
    "evaluate_context_0": steps.evaluate_context,
    "export_context_0": steps.export_asset,
}  # fmt: skip
FAST = ("finetune_dreambooth", "evaluate", "edit_nerf_0")
"""Of the steps, those that `make test` lets fail: an early one, a late one, one of a context; the others are alike."""
BEFORE = (
    (publishing, "finished_stages"), (publishing, "replay"), (publishing, "tags"), (publishing, "log_config"),
    (publishing, "log_dataset"), (publishing, "bundle_uri"), (publishing, "log_files"), (publishing, "log_contexts"),
    (publishing, "set_tags"), (registration, "log_metadata"), (registration, "write_field"),
    (mlflow.pyfunc, "log_model"), (publishing, "set_end"),
)  # fmt: skip
# The last one leaves the row as that of a completed run: what fails is the storing of the step's result.
AFTER = ((registration, "log_metadata"), (mlflow.pyfunc, "log_model"), (publishing, "set_end"))
FAST_PARTS = ("replay", "log_files", "write_field", "log_model", "set_end")
"""Of the parts of `publish`, likewise: with nothing in either registry, with files, in ZenML's alone, in both."""

EVERY = "Every row is complete."


class Injected(DreamBooth3DError):
    """The failure."""


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A product whose state is that of this process."""
    folder = make_product(tmp_path_factory.mktemp("failures")).root
    with own_registries(folder), pytest.MonkeyPatch.context() as patch:
        search_coarsely(patch)
        patch.chdir(folder)
        pull_photos(folder)
        set_custom_source_root(str(ROOT))
        yield folder
        set_custom_source_root(None)


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def train(root: Path, *uncached: str) -> tuple[int, str]:
    """Run the main job; its exit code and what it said last on stderr."""
    path = root / "configs" / "tiny.yaml"
    options = {name: {"enable_cache": False} for name in uncached}
    path.write_text(yaml.safe_dump({"parameters": CONFIG, "steps": options}))
    code, _, errors = command("train", "configs/tiny.yaml")
    return code, errors.strip().splitlines()[-1] if errors.strip() else ""


def listed() -> list[dict[str, Any]]:
    return json.loads(command("runs", "list", "--json")[1])


def good_versions() -> list[str]:
    """The runs whose versions are complete in both registries and could be promoted."""
    registered = read(SUBJECT)
    numbers = [number for number in registered.versions if registered.is_complete(number)]
    return [registered.run_of(number) for number in numbers if registered.status_of(number) == "completed"]


@pytest.fixture(scope="module")
def first(root: Path) -> str:
    """A run without a failure, whose version is promoted."""
    code, error = train(root)
    assert code == 0, error
    (line,) = listed()
    assert line["status"] == "completed"
    promote(candidate(SUBJECT, line["run"]), "the first")
    return line["run"]


def failing(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """The same function, which fails before or after it has done its work."""

    @functools.wraps(function)
    def fail(*arguments: Any, **options: Any) -> Any:
        if after:
            function(*arguments, **options)
        raise Injected("this part was made to fail")

    return fail


def assert_failed(root: Path, first: str, *uncached: str) -> None:
    """The command fails, the run is listed as failed, and readers still get the version of the first run."""
    before = {line["run"] for line in listed()}
    code, error = train(root, *uncached)
    assert (code, error) == (1, "Error: this part was made to fail")
    (new,) = [line for line in listed() if line["run"] not in before]
    assert new["status"] == "failed"
    shown = json.loads(command("runs", "show", new["run"], "--json")[1])
    assert (shown["run"], shown["status"]) == (new["run"], "failed")
    code, _, error = command("production", "promote", new["run"])
    assert code == 1 and error.startswith(f"Error: {new['run']}: this run "), error
    assert production(SUBJECT).run == first
    assert seen_by_readers(SUBJECT) == ([first], [first])
    assert new["run"] not in good_versions()


def slow_but(fast: tuple[str, ...], cases: list[tuple[Any, ...]]) -> list[Any]:
    """The cases, of which those whose last word is not among the fast ones are slow."""
    return [pytest.param(*case, id=case[-1], marks=[] if case[-1] in fast else [pytest.mark.slow]) for case in cases]


@pytest.mark.parametrize("name", slow_but(FAST, [(name,) for name in STEPS]))
def test_a_failure_in_a_step(name: str, root: Path, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = STEPS[name]
    monkeypatch.setattr(type(step), "entrypoint", staticmethod(failing(step.entrypoint, after=False)))
    assert_failed(root, first, name)


@pytest.mark.parametrize(("module", "name"), slow_but(FAST_PARTS, [*BEFORE]))
def test_a_failure_before_a_part_of_publish(
    module: Any, name: str, root: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(getattr(module, name), after=False))
    assert_failed(root, first)


@pytest.mark.parametrize(("module", "name"), slow_but(FAST_PARTS, [*AFTER]))
def test_a_failure_after_a_part_of_publish(
    module: Any, name: str, root: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(getattr(module, name), after=True))
    assert_failed(root, first)


def test_a_failure_of_the_index(root: Path, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is complete in both registries by then."""
    log = mlflow.log_dict

    def fail(values: object, name: str) -> None:
        if name == "run_index.json":
            raise Injected("this part was made to fail")
        log(values, name)

    monkeypatch.setattr(mlflow, "log_dict", fail)
    assert_failed(root, first)


def test_the_same_command_again_leaves_one_good_version(root: Path, first: str) -> None:
    """After all of the failures above, however far they came."""
    before = set(good_versions())
    code, error = train(root)
    assert code == 0, error
    newest = listed()[0]
    assert newest["status"] == "completed"
    assert set(good_versions()) - before == {newest["run"]} and len(good_versions()) == len(before) + 1
    promote(candidate(SUBJECT, newest["run"]), "better")
    assert seen_by_readers(SUBJECT) == ([newest["run"]], [newest["run"]])


def damaged_bundle(files: list[Path]) -> None:
    """All of it is gone."""
    shutil.rmtree(files[0].parent)


def flipped_weights(files: list[Path]) -> None:
    """One bit in each network of a checkpoint."""
    for file in [file for file in files if file.suffix == ".safetensors"]:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)


def truncated_field(files: list[Path]) -> None:
    """Its second half is missing."""
    (file,) = [file for file in files if file.name == "field.safetensors"]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("maker", "damage", "uncached"),
    [
        ("export_asset", damaged_bundle, ()),
        ("finetune_dreambooth", flipped_weights, ("init_nerf",)),
        pytest.param("init_nerf", truncated_field, ("generate_pseudo_views",), marks=pytest.mark.slow),
    ],
)
def test_what_is_damaged_in_the_store_is_made_again(
    maker: str, damage: Callable[[list[Path]], None], uncached: tuple[str, ...], root: Path, first: str
) -> None:
    """In the same command: the step that made it no longer counts as cached."""
    # What the cache would serve; a test before may have had the step done once more.
    latest = next(line["run"] for line in listed() if line["status"] == "completed")
    (versions,) = Client().get_pipeline_run(latest).steps[maker].outputs.values()
    damage([path for path in Path(versions[0].uri).rglob("*") if path.is_file()])
    before = {line["run"] for line in listed()}
    code, error = train(root, *uncached)
    assert code == 0, error
    new = [line for line in listed() if line["run"] not in before]
    assert new[0]["status"] == "completed"
    again = Client().get_pipeline_run(new[0]["run"]).steps[maker]
    assert again.status == ExecutionStatus.COMPLETED, "not from the cache"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A locked database is waited for for a tenth of a second instead of twenty, and there are no pauses."""
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(patience, "CONNECTIONS", 1)
    monkeypatch.setattr(tracking, "outage", patience.Outage())
    with short_locks():
        yield


def figures(row: Run) -> tuple[set[str], dict[str, float], dict[str, str], dict[str, str]]:
    """What a row says of its run, times and names aside."""
    tags = {key: value for key, value in row.data.tags.items() if not key.startswith(("mlflow.", "zenml."))}
    return set(row.data.metrics), untimed(row.data.metrics), dict(row.data.params), tags


def files(row: Run, folder: str | None = None) -> set[str]:
    """The paths of a row's files, of pictures without the moment and the number that MLflow puts into their names."""
    found = rows.client().list_artifacts(row.info.run_id, folder)
    paths = {path for entry in found for path in (files(row, entry.path) if entry.is_dir else {entry.path})}
    return {path.partition("+step+")[0] for path in paths}


@pytest.mark.parametrize("again", ["publish", pytest.param("init_nerf", marks=pytest.mark.slow)])
def test_a_tracker_that_is_locked_from_a_step_on(
    again: str,
    root: Path,
    first: str,
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run gets to its end and says what is missing; from what is stored the row is completed."""
    before = {line["run"] for line in listed() if line["status"] == "completed"}
    prepare, other = MLFlowExperimentTracker.prepare_step_run, None

    def lock_then_prepare(tracker: MLFlowExperimentTracker, info: Any) -> None:
        nonlocal other
        if other is None and info.pipeline_step_name == again:
            other = sqlite3.connect(next(root.rglob("mlflow.db")), isolation_level=None, check_same_thread=False)
            other.execute("BEGIN EXCLUSIVE")
        prepare(tracker, info)

    monkeypatch.setattr(MLFlowExperimentTracker, "prepare_step_run", functools.wraps(prepare)(lock_then_prepare))
    logging.getLogger().setLevel(logging.WARNING)  # a command before has silenced it
    code, error = train(root, *({again} - {"publish"}))
    assert other is not None
    with closing(other):
        other.execute("ROLLBACK")
    name = next(run.name for run in Client().list_pipeline_runs(sort_by="desc:created").items)
    assert code == 1 and error.startswith(f"Error: {name}: MLflow did not take all of the run's row ("), error
    assert f"`dreambooth3d runs complete {name}`" in error and (root / "outputs" / name / "asset.glb").is_file()
    told = [record.message for record in caplog.records if "MLflow did not" in record.message]
    assert len([text for text in told if "runs complete" not in text]) == 1, "one warning"
    assert name not in good_versions()
    assert command("production", "promote", name)[0] == 1
    # A step before the tracker went away may have opened the row.
    assert {line["status"] for line in listed() if line["run"] == name} <= {"incomplete"}
    assert {line["run"] for line in listed() if line["status"] == "completed"} <= before, "nothing is complete there"

    code, said, error = command("runs", "complete", name)
    assert code == 0 and "completed" in said, error
    assert figures(rows.find_row(name)) == figures(rows.find_row(first))
    assert files(rows.find_row(name)) == files(rows.find_row(first))
    assert [line["status"] for line in listed() if line["run"] == name] == ["completed"]
    assert name in good_versions()
    assert command("runs", "complete", name)[1] == f"{name}: its row is complete.\n"


def test_the_row_of_a_run_that_failed_is_completed_with_what_it_has_stored(
    root: Path, first: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    step = STEPS["evaluate"]
    with monkeypatch.context() as patch:
        patch.setattr(type(step), "entrypoint", staticmethod(failing(step.entrypoint, after=False)))
        assert train(root, "evaluate")[0] == 1
    name = listed()[0]["run"]
    assert command("runs", "complete", "--all")[0] == 0
    row = rows.find_row(name)
    whole = rows.find_row(first).data.metrics
    assert row.data.metrics["steps/cached/refine_nerf"] == 1.0 and row.info.status == "FAILED"
    made = {key for key in whole if key.startswith(("refine_nerf/", "finetune_dreambooth/", "init_nerf/"))}
    assert {key for key in row.data.metrics if key in made} == made
    assert not any(key.startswith("evaluate/") for key in row.data.metrics) and listed()[0]["status"] == "failed"
    code, said, error = command("runs", "complete", "--all")
    # Other tests have damaged what the rows of theirs lack.
    *lines, last = said.splitlines()
    assert code == 0 and all("left as it is" in line and name not in line for line in lines), error
    assert last == EVERY if not lines else last.endswith(" cannot be completed: what they lack is gone.")
    assert not lines or last.startswith(f"{len(lines)} row")


def test_a_run_takes_what_another_has_made_meanwhile(root: Path, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both began at once: ZenML's cache had nothing yet, and another process holds the step's work folder."""
    acquire, ask, asked, busy = FolderLock.acquire, cache_utils.get_cached_step_run, set(), set()

    def nothing_at_first(cache_key: str) -> Any:
        if cache_key in asked:
            return ask(cache_key=cache_key)
        asked.add(cache_key)
        return None

    def held_at_first(lock: FolderLock, note: Any = None) -> bool:
        taken = acquire(lock, {"run": "another", "pid": 1}) if lock.path not in busy else acquire(lock, note)
        if lock.path in busy:
            return taken
        busy.add(lock.path)
        FolderLock.release(lock)
        return False

    monkeypatch.setattr(cache_utils, "get_cached_step_run", nothing_at_first)
    monkeypatch.setattr(FolderLock, "acquire", held_at_first)
    for name in ("diffusion.finetuning.dreambooth.finetune", "checkpoint_distillation.distil_checkpoint"):
        monkeypatch.setattr(f"dreambooth3d.{name}", failing(print, after=False))
    code, error = train(root)
    assert code == 0, error
    newest = listed()[0]["run"]
    ran = Client().get_pipeline_run(newest).steps
    assert ran["finetune_dreambooth"].status == ran["select_checkpoints"].status == ExecutionStatus.COMPLETED
    assert figures(rows.find_row(newest)) == figures(rows.find_row(first))
    assert not [path for path in work_root().glob("*") if path.name != "class_images"]
