"""What a process that does many runs keeps of each, and how much it reads of those before."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from zenml.client import Client

from operations.launch.strict import _close_log_store
from operations.launch.summary import print_summary
from operations.records import rows
from operations.records.keys import metric_key
from operations.records.row import NAME_TAG, RUN_TAG
from operations.records.tracking import forget_artifact_places
from operations.registry.registration import _log_model
from tests.operations.toy import run_toy


@pytest.fixture
def experiment(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of an experiment of the product's, in which there are rows of others' runs."""
    client, folder = rows.client(), tmp_path_factory.mktemp("artifacts")
    place = client.create_experiment(f"{rows.EXPERIMENT}-{uuid4()}", artifact_location=folder.as_uri())
    for _ in range(3):
        client.create_run(place, tags={RUN_TAG: f"other-{uuid4()}"}, run_name="other")
    return str(place)


def test_a_runs_end_reads_no_rows_of_other_runs(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, read = MlflowClient.search_runs, []

    def counted(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        found = search(self, *arguments, **options)
        read.append({rows.row_name(row) for row in found})
        return found

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    run = run_toy(seed=41)
    row = rows.row_of_run(run.name)
    assert row is not None
    rows.client().log_metric(row.info.run_id, metric_key("evaluate", "psnr"), 20.0)
    print_summary(run, tmp_path)
    assert set().union(*read) == {run.name}


def test_a_row_is_found_by_its_run_whatever_mlflow_calls_it(experiment: str) -> None:
    client, name = rows.client(), f"mine-{uuid4()}"
    shown = client.create_run(experiment, start_time=2, tags={RUN_TAG: name}, run_name="corgi").info.run_id
    client.create_run(experiment, start_time=3, tags={RUN_TAG: name}, run_name="corgi")
    of_before = client.create_run(experiment, start_time=1, run_name=f"before-{name}").info.run_id
    found, old = rows.row_of_run(name), rows.row_of_run(f"before-{name}")
    assert found is not None and found.info.run_id == shown
    assert old is not None and old.info.run_id == of_before and old.data.tags[NAME_TAG] == f"before-{name}"
    assert rows.row_of_run(name[:-1]) is None


def test_a_runs_loggers_go_with_its_log_store(home: Path) -> None:
    store = cast(Any, Client().active_stack.log_store)
    store._activate()
    logger = weakref.ref(store.provider.get_logger("step"))
    gc.collect()
    assert logger() is not None
    _close_log_store()
    gc.collect()
    assert logger() is None


def test_a_runs_artifact_store_goes_with_the_run(experiment: str) -> None:
    client = rows.client()
    row = client.create_run(experiment).info.run_id
    client.log_text(row, "text", "file.txt")
    known = weakref.ref(client._tracking_client._get_artifact_repo(row))
    gc.collect()
    assert known() is not None
    forget_artifact_places()
    gc.collect()
    assert known() is None


def test_a_model_from_code_leaves_no_module(experiment: str, tmp_path: Path) -> None:
    (tmp_path / "field.json").write_text("{}")
    before = set(sys.modules)
    mlflow.set_tracking_uri(rows.tracking_uri())
    with mlflow.start_run(experiment_id=experiment):
        assert _log_model("dreambooth3d-leaves", tmp_path, {}) == "1"
    assert not {name for name in set(sys.modules) - before if getattr(sys.modules[name], "AssetModel", None)}
