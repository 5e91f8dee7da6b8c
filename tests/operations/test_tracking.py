"""Figures on their way to MLflow while a step computes: a tracker that is away costs a warning and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from dreambooth3d.record import StepLog
from operations.records import tracking
from operations.records.tracking import LiveSeries, log_record_if_possible


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tracker of its own, with an active run; it waits for a lock for a tenth of a second instead of some."""
    path = tmp_path / "mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{path}?timeout=0.1")
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)  # a test before may have named its own
    with mlflow.start_run(experiment_id="0"):
        yield path
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
    assert len([text for text in warnings if "MLflow did not take figures" in text]) == 2, "once live, once at the end"
    log_record_if_possible(log.record(), live.sent)
    assert points("init_nerf/loss") == {0: 3.0, 1: 2.5, 2: 2.0, 3: 1.0}


def test_a_tracker_that_is_away_is_asked_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now = [], [0.0]

    def away(_metrics: object) -> None:
        asked.append(now[0])
        raise ConnectionError("HTTPConnectionPool(host='tracker', port=80): Max retries exceeded")

    monkeypatch.setattr(tracking, "log_metrics", away)
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now[0])
    live = LiveSeries("init_nerf", batch=1)
    for second in range(3600):
        now[0] = float(second)
        live(second, {"loss": 1.0})
    waits = [after - before for before, after in pairwise(asked)]
    assert len(asked) < 12 and waits == sorted(waits) and max(waits) <= tracking.LONGEST_PAUSE_S
    assert not live.sent
