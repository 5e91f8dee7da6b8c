"""A failure in each step of the training pipeline and in each part of `publish`: a failed run is never a good one.

All runs are in this process: the steps before the failure come from the cache of the first.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc  # MLflow loads it late, in place of a stand-in
import pytest
import yaml
from typer.testing import CliRunner
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.environment import Environment
from zenml.utils.source_utils import set_custom_source_root

import steps
from dreambooth3d.cli.main import app
from dreambooth3d.cli.setup import pull_photos
from dreambooth3d.errors import DreamBooth3DError
from operations.records import publishing
from operations.registry import registration
from operations.registry.promotion import candidate, production, promote
from operations.registry.versions import read
from tests.pipelines.registries import own_registries, seen_by_readers
from tests.product import ROOT, TINY, make_product

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
FAST = ("finetune_dreambooth", "init_nerf", "evaluate", "export_asset", "edit_nerf_0")
"""Of the steps, those that `make test` lets fail; the others are alike, and slow."""
BEFORE = (
    (publishing, "finished_stages"), (publishing, "replay"), (publishing, "tags"), (publishing, "log_config"),
    (publishing, "log_dataset"), (publishing, "bundle_uri"), (publishing, "log_files"), (publishing, "log_contexts"),
    (publishing, "set_tags"), (registration, "log_metadata"), (registration, "write_field"),
    (mlflow.pyfunc, "log_model"), (publishing, "set_end"),
)  # fmt: skip
# The last one leaves the row as that of a completed run: what fails is the storing of the step's result.
AFTER = ((registration, "log_metadata"), (mlflow.pyfunc, "log_model"), (publishing, "set_end"))


class Injected(DreamBooth3DError):
    """The failure."""


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A product whose state is that of this process."""
    folder = make_product(tmp_path_factory.mktemp("failures")).root
    with own_registries(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # ZenML asks pip for all packages at each run, which takes longer than a cached run.
        patch.setattr(Environment, "get_python_packages", staticmethod(list))
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


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in STEPS]
)
def test_a_failure_in_a_step(name: str, root: Path, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = STEPS[name]
    monkeypatch.setattr(type(step), "entrypoint", staticmethod(failing(step.entrypoint, after=False)))
    assert_failed(root, first, name)


@pytest.mark.parametrize(("module", "name"), BEFORE, ids=[name for _, name in BEFORE])
def test_a_failure_before_a_part_of_publish(
    module: Any, name: str, root: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(getattr(module, name), after=False))
    assert_failed(root, first)


@pytest.mark.parametrize(("module", "name"), AFTER, ids=[name for _, name in AFTER])
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
    (versions,) = Client().get_pipeline_run(first).steps[maker].outputs.values()
    damage([path for path in Path(versions[0].uri).rglob("*") if path.is_file()])
    before = {line["run"] for line in listed()}
    code, error = train(root, *uncached)
    assert code == 0, error
    new = [line for line in listed() if line["run"] not in before]
    assert new[0]["status"] == "completed"
    again = Client().get_pipeline_run(new[0]["run"]).steps[maker]
    assert again.status == ExecutionStatus.COMPLETED, "not from the cache"
