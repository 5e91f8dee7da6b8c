"""Rows and runs read from the files of ZenML and MLflow: the same as their clients tell, or left to these."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Metric, Param
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from operations.records import rows, tables
from operations.records.local_stores import LocalStores, RunStatus, local_stores
from operations.records.reading import Reader
from tests.operations.toy import run_toy


@pytest.fixture(scope="module")
def good(home: Path) -> PipelineRunResponse:
    """A run whose row says what rows may say; beside it one that failed."""
    with pytest.raises(Exception):  # noqa: B017  (ZenML chooses the type)
        run_toy(seed=71, fail=True)
    run = run_toy(seed=71)
    row = rows.find_row(run.name).info.run_id
    values = {"evaluate/psnr": 20.5, "evaluate/clip_i": float("nan"), "steps/seconds/finish": 1.5, "huge": float("inf")}
    points = [Metric(key, value, 1, 0) for key, value in values.items()]
    later = Metric("evaluate/psnr", 21.25, 2, 1)
    params = [Param("finish.prompt", "a photo of a 'red' dög, \"sks\"")]
    rows.client().log_batch(row, metrics=[*points, later], params=params)
    for key, value in {"subject": "bat", "preset": "demo", "note": "%s ? ''"}.items():
        rows.client().set_tag(row, key, value)
    return run


def stores() -> LocalStores:
    found = local_stores(rows.EXPERIMENT)
    assert found is not None
    return found


def test_files_and_clients_tell_the_same(good: PipelineRunResponse) -> None:
    """Of every run that there is; `repr` knows that two NaN are alike."""
    files, clients = Reader(stores()), Reader()
    listed = tables.briefs(files, 1000)
    assert len(listed) > 1 and repr(listed) == repr(tables.briefs(clients, 1000))
    assert listed[0]["psnr"] == 21.25 and (listed[0]["subject"], listed[0]["preset"]) == ("bat", "demo")
    assert repr(tables.briefs(files, 1)) == repr(listed[:1])
    for name in ("latest", good.name, rows.find_row(good.name).info.run_id[:12]):
        described = tables.describe(files, name)
        assert described["run"] == good.name and repr(described) == repr(tables.describe(clients, name))
    names = [line["run"] for line in listed[:2]]
    assert repr(tables.compare(files, names)) == repr(tables.compare(clients, names))
    everything = [(row.info.run_id, row.info.end_time, dict(row.data.tags)) for row in files.newest(1000)]
    assert everything == [(row.info.run_id, row.info.end_time, dict(row.data.tags)) for row in rows.list_rows(1000)]


def test_a_failed_run_says_what_it_was_for(good: PipelineRunResponse) -> None:
    failed = next(line for line in tables.briefs(Reader(stores()), 10) if line["status"] == "failed")
    assert (failed["subject"], failed["preset"]) == ("corgi", "tiny")


def test_every_status_of_zenml_means_the_same() -> None:
    for status in ExecutionStatus:
        ours = RunStatus(str(status))
        assert (ours.is_finished, ours.is_successful) == (status.is_finished, status.is_successful), status


@pytest.fixture
def copied(good: PipelineRunResponse, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStores:
    """The state in another place, which may be spoilt."""
    for name in (".zenconfig", ".zen"):
        shutil.copytree(home / name, tmp_path / name)
    settings = tmp_path / ".zenconfig" / "config.yaml"
    settings.write_text(settings.read_text().replace(str(home), str(tmp_path)))
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(settings.parent))
    monkeypatch.setenv("ZENML_REPOSITORY_PATH", str(tmp_path))
    found = stores()
    assert found.zenml.is_relative_to(tmp_path) and found.mlflow.is_relative_to(tmp_path)
    return found


def change(file: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(file)) as found, found:
        assert found.execute(statement, values).rowcount == 1


def tracker(**configuration: str) -> tuple[str, bytes]:
    text = base64.b64encode(json.dumps(configuration).encode())
    return "UPDATE stack_component SET configuration = ? WHERE type = 'experiment_tracker'", text


def test_a_tracker_on_a_server_is_asked_itself(copied: LocalStores) -> None:
    change(copied.zenml, *tracker(tracking_uri="http://127.0.0.1:1", tracking_token="{{secret.token}}"))
    assert local_stores(rows.EXPERIMENT) is None


def test_a_tracker_may_name_its_file(copied: LocalStores, tmp_path: Path) -> None:
    shutil.copyfile(copied.mlflow, tmp_path / "a file?.db")
    change(copied.zenml, *tracker(tracking_uri=f"sqlite:///{tmp_path}/other.db"))
    assert local_stores(rows.EXPERIMENT) is None  # there is none, which MLflow's client says better
    (tmp_path / "a file?.db").rename(tmp_path / "other.db")
    assert stores().mlflow == tmp_path / "other.db"


@pytest.mark.parametrize("which", ["zenml", "mlflow"])
def test_another_layout_is_left_to_the_clients(copied: LocalStores, which: str) -> None:
    change(getattr(copied, which), "UPDATE alembic_version SET version_num = 'newer'")
    assert local_stores(rows.EXPERIMENT) is None


def test_a_server_of_zenml_is_asked_itself(
    copied: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / ".zenconfig" / "config.yaml"
    values = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump(values | {"store": {"type": "rest", "url": "https://zenml.example"}}))
    assert local_stores(rows.EXPERIMENT) is None
    settings.write_text(yaml.safe_dump(values))
    monkeypatch.setenv("ZENML_STORE_URL", "https://zenml.example")
    assert local_stores(rows.EXPERIMENT) is None


def test_reading_writes_nothing(copied: LocalStores) -> None:
    before = [file.read_bytes() for file in (copied.zenml, copied.mlflow)]
    tables.briefs(Reader(copied), 10)
    assert [file.read_bytes() for file in (copied.zenml, copied.mlflow)] == before
