"""Figures on their way to MLflow while a step computes: a tracker that is away costs a warning and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from dreambooth3d.record import StepLog
from operations.launch import zenml_steps
from operations.records import patience, rows, tracking
from operations.records.patience import Outage, TrackerAwayError, patiently
from operations.records.row import Origin
from operations.records.tracking import LiveSeries, log_record_if_possible
from operations.registry.publication import IncompleteRowError, summarize_run
from tests.pipelines.registries import short_locks
from tests.tracking_server import HANGS, FaultyServer


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, whose making takes ten seconds."""
    path = tmp_path_factory.mktemp("tracker") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tracker of its own, with an active run; it waits for a lock for a tenth of a second instead of some."""
    path = Path(shutil.copyfile(empty_database, tmp_path / "mlflow.db"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{path}?timeout=0.1")
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)  # a test before may have named its own
    monkeypatch.setattr(tracking, "outage", Outage())
    with short_locks(), mlflow.start_run(experiment_id="0"):
        yield path
    while mlflow.active_run() is not None:  # one that was opened again
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def points(name: str) -> dict[int, float]:
    run = mlflow.active_run()
    assert run is not None
    return {point.step: point.value for point in MlflowClient().get_metric_history(run.info.run_id, name)}


def test_a_locked_database_loses_nothing(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked in the middle of a stage, for longer than MLflow waits."""
    monkeypatch.setattr(tracking, "PAUSE_S", 0.0)
    live = LiveSeries("init_nerf", batch=1)
    log = StepLog("init_nerf", live)
    log.scalars(0, loss=3.0)
    assert points("init_nerf/loss") == {0: 3.0}
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        log.scalars(1, loss=2.5)
        log.scalars(2, loss=2.0)
        run = mlflow.active_run()
        assert run is not None
        log_record_if_possible(log.record(), live.sent)
        assert mlflow.active_run() is None, "or ZenML would lose the step with the row"
        other.execute("ROLLBACK")
    mlflow.start_run(run.info.run_id)
    assert live.sent == {(0, "loss")}
    log.scalars(3, loss=1.0)
    assert points("init_nerf/loss") == {0: 3.0, 3: 1.0}
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in warnings if "MLflow did not take figures" in text]) == 1
    log_record_if_possible(log.record(), live.sent)
    assert points("init_nerf/loss") == {0: 3.0, 1: 2.5, 2: 2.0, 3: 1.0}


def test_a_tracker_that_is_away_is_asked_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now = [], [0.0]

    def away(_metrics: object) -> None:
        asked.append(now[0])
        raise ConnectionError("HTTPConnectionPool(host='tracker', port=80): Max retries exceeded")

    monkeypatch.setattr(tracking, "log_metrics", away)
    monkeypatch.setattr(tracking, "outage", Outage())
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now[0])
    live = LiveSeries("init_nerf", batch=1)
    for second in range(3600):
        now[0] = float(second)
        live(second, {"loss": 1.0})
    waits = [after - before for before, after in pairwise(asked)]
    assert len(asked) < 12 and waits == sorted(waits) and max(waits) <= tracking.LONGEST_PAUSE_S
    assert not live.sent


@pytest.fixture(params=[429, 500, 503, HANGS], ids=["429", "500", "503", "hangs"])
def faulty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server with a fault; as an hour's wait would show, nothing waits for as long as it asks for."""
    server, before = FaultyServer(request.param), mlflow.get_tracking_uri()
    monkeypatch.setattr(patience, "BRIEF_TIMEOUT_S", 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.delenv("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr(tracking, "outage", Outage())
    yield server
    server.close()
    mlflow.set_tracking_uri(before)


def tracker_at(uri: str, ended: list[bool]) -> Any:
    """A stack's tracker; `ended` gets whether a step had failed."""

    def prepare_step_run(_tracker: object, _info: object) -> None:
        raise AssertionError("ZenML's own preparation")

    def cleanup_step_run(_tracker: object, _info: object, step_failed: bool) -> None:
        ended.append(step_failed)
        MlflowClient(uri).set_terminated("0" * 32)

    class Tracker:
        prepare = zenml_steps._patient_preparation(prepare_step_run)
        clean_up = zenml_steps._patient_cleanup(cleanup_step_run)
        get_settings = staticmethod(lambda info: SimpleNamespace(nested=False, tags={}, experiment_name="dreambooth3d"))
        configure_mlflow = staticmethod(lambda: mlflow.set_tracking_uri(uri))
        _set_active_experiment = staticmethod(mlflow.set_experiment)
        _get_internal_tags = staticmethod(dict)
        _clear_inherited_run_environment = staticmethod(lambda run_id: None)

    return Tracker()


def step_of_a_run() -> Any:
    pipeline = SimpleNamespace(name="toy", extra={"preset": "demo"}, model=SimpleNamespace(name="dreambooth3d-corgi"))
    return SimpleNamespace(run_name="run", pipeline_step_name="init_nerf", pipeline=pipeline)


def test_a_server_with_a_fault_costs_a_step_one_warning(
    faulty: FaultyServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its beginning to its end, with one retry for each request that is tried."""
    ended: list[bool] = []
    tracker, info = tracker_at(faulty.uri, ended), step_of_a_run()
    tracker.prepare(info)
    assert faulty.asked == 1 + patience.BRIEF_RETRIES and mlflow.active_run() is None
    live = LiveSeries("init_nerf", batch=1)
    log = StepLog("init_nerf", live)
    for step in range(50):
        log.scalars(step, loss=1.0)
    log_record_if_possible(log.record(), live.sent)
    tracker.clean_up(info, False)
    assert ended == [False] and not live.sent
    assert faulty.asked == 4 * (1 + patience.BRIEF_RETRIES), "begin, one point, the record, the end"
    warnings = [record.message for record in caplog.records if record.name.startswith("operations")]
    assert len(warnings) == 1 and warnings[0].startswith("init_nerf: MLflow did not open the run's row"), warnings
    assert tracking._open_later is None


def test_a_server_with_a_fault_is_given_up_on(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a run's end, after some tries."""
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(TrackerAwayError):
        patiently(MlflowClient(faulty.uri).search_experiments, "run")
    assert faulty.asked == 3 * (1 + 1)


def test_the_row_of_a_run_over_many_subjects_is_given_up_on(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence that says what writes it later."""
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(rows, "_tracker", lambda: tracker_at(faulty.uri, []))
    run: Any = SimpleNamespace(name="run", config=SimpleNamespace(settings={}, extra={}, model=None), pipeline=None)
    with pytest.raises(IncompleteRowError, match=r"^run: MLflow did not take .* `dreambooth3d runs complete run`"):
        summarize_run(run, [{"subject": "corgi", "action": "skipped", "reason": "nothing changed"}])
    assert faulty.asked == 3 * (1 + 1)


def test_what_is_wrong_and_not_away_is_not_tried_again(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0))
    tries = []

    def work() -> None:
        tries.append(1)
        MlflowClient().get_run("0" * 32)

    with pytest.raises(mlflow.MlflowException, match="not found"):
        patiently(work, "run")
    assert len(tries) == 1


def test_a_row_that_could_not_be_opened_is_opened_while_the_step_runs(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row, with all points but those of before; the tracker answers again in the middle of the step."""
    mlflow.end_run()
    monkeypatch.setattr(tracking, "PAUSE_S", 0.0)
    tracker = tracker_at(mlflow.get_tracking_uri(), [])
    info = step_of_a_run()
    live = LiveSeries("init_nerf", batch=1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        tracker.prepare(info)
        live(0, {"loss": 3.0})
        other.execute("ROLLBACK")
    assert mlflow.active_run() is None
    live(1, {"loss": 2.0})
    assert points("init_nerf/loss") == {1: 2.0} and live.sent == {(1, "loss")}
    tracker.clean_up = None
    mlflow.end_run()
    assert rows.open_row("dreambooth3d", Origin("run"), tracker)
    named = "tags.`zenml.pipeline_run` = 'run'"
    assert len(mlflow.search_runs(search_all_experiments=True, filter_string=named, output_format="list")) == 1
