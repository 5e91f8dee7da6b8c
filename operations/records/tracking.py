"""From a step's record to MLflow: parameters `<step>.<name>`, series and figures as `keys` has them, pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import mlflow
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from dreambooth3d.errors import gist
from dreambooth3d.record import StepRecord
from operations.records.keys import metric_key
from operations.records.patience import Outage, briefly
from operations.records.pictures import log_pictures

_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_PARAM_LENGTH = 6000

Point = tuple[int, str]
PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
SENDING_SHARE = 20
UNREACHABLE = (
    "%s: MLflow did not take figures (%s). The stage goes on; all of them are in its record, from which the run's row "
    "is completed at its end."
)
outage = Outage()
_open_later: Callable[[], None] | None = None


def open_later(opening: Callable[[], None] | None) -> None:
    """How the present step's row is opened, as it could not be when the step began; None where it was."""
    global _open_later
    _open_later = opening


class LiveSeries:
    """Sends points of time series to the active MLflow run, in batches, so that loops hardly wait for it.

    A tracker that is away costs a warning and nothing else: the points are in the step's record as well, and are sent
    with it. It is asked again after `PAUSE_S`, then ever less often. A slow one costs a twentieth of the time.

    Attributes:
        sent: the points that have arrived.
    """

    def __init__(self, step_name: str, batch: int = 300, interval_s: float = 5.0) -> None:
        self.step_name = step_name
        self.sent: set[Point] = set()
        self._batch, self._interval_s, self._least_interval_s = batch, interval_s, interval_s
        self._waiting: list[Metric] = []
        self._last = time.monotonic()
        self._failures, self._paused_until = 0, 0.0

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point per named series; this is a `StepLog` listener."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(f"{self.step_name}/{name}", value, now, step) for name, value in values.items()]
        waited = time.monotonic() - self._last
        full = len(self._waiting) >= self._batch and self._interval_s == self._least_interval_s
        if full or waited > self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting, if the tracker answers."""
        if time.monotonic() < self._paused_until:
            self._last = time.monotonic()
            self._waiting = []
            return
        waiting, self._waiting, started = self._waiting, [], time.monotonic()
        try:
            with briefly():
                if mlflow.active_run() is None and _open_later is not None:
                    _open_later()
                log_metrics(waiting)
        # A database that is locked, a server that is away, slow or overloaded: each raises errors of its own.
        except Exception as error:
            outage.failed(UNREACHABLE, self.step_name, gist(error))
            self._failures += 1
            self._paused_until = time.monotonic() + min(LONGEST_PAUSE_S, PAUSE_S * 2**self._failures)
        else:
            outage.answered()
            begin = len(self.step_name) + 1
            self.sent.update((metric.step, metric.key[begin:]) for metric in waiting)
            self._interval_s = max(self._least_interval_s, SENDING_SHARE * (time.monotonic() - started))
        self._last = time.monotonic()


def active_run_id() -> str:
    """Id of the MLflow run that the present step writes to.

    Raises:
        RuntimeError: there is none, because the step has no experiment tracker.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no MLflow run is active: the step needs experiment_tracker=True")
    return run.info.run_id


def log_metrics(metrics: list[Metric]) -> None:
    """Log any number of metric points to the active run; values that are not finite are left out."""
    run, metrics = mlflow.active_run(), [metric for metric in metrics if math.isfinite(metric.value)]
    if run is None:
        return
    for start in range(0, len(metrics), _METRICS_PER_CALL):
        MlflowClient().log_batch(run.info.run_id, metrics=metrics[start : start + _METRICS_PER_CALL])


def log_params(values: Mapping[str, object], known: Iterable[str] = ()) -> None:
    """Log parameters to the active run, those in `known` aside: MLflow refuses a second value."""
    run, known = mlflow.active_run(), set(known)
    if run is None:
        return
    params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in values.items() if key not in known]
    for start in range(0, len(params), _PARAMS_PER_CALL):
        MlflowClient().log_batch(run.info.run_id, params=params[start : start + _PARAMS_PER_CALL])


def log_record_if_possible(record: StepRecord, sent: Collection[Point] = ()) -> None:
    """`log_record`, or a warning: whatever the tracker lacks, `publish` adds from the stored record."""
    try:
        with briefly():
            if mlflow.active_run() is None and _open_later is not None:
                _open_later()
            log_record(record, sent)
    except Exception as error:
        outage.failed(UNREACHABLE, record.name, gist(error))
        # ZenML ends the row before it stores what the step has made, and would lose that with the row.
        let_go_of_row()
    else:
        outage.answered()


def let_go_of_row(status: str = "FINISHED") -> None:
    """End the active run, or, where the tracker is away, forget it."""
    while mlflow.active_run() is not None:
        with suppress(Exception), briefly():
            mlflow.end_run(status)


def forget_artifact_places() -> None:
    """Drop what MLflow keeps of the last 1,024 runs' artifact stores: each has a queue and thread pools."""
    _artifact_repos_cache.clear()


def log_record(record: StepRecord, sent: Collection[Point] = ()) -> None:
    """Log a step's parameters, metrics, series and pictures to the active run.

    Args:
        record: of the step.
        sent: points of its series that are there already.
    """
    if mlflow.active_run() is None:
        return
    now = int(time.time() * 1000)
    log_params({f"{record.name}.{name}": value for name, value in record.params.items()})
    rows = record.series.itertuples(index=False)
    series = [
        Metric(f"{record.name}/{row.name}", float(row.value), now, int(row.step))
        for row in rows
        if (int(row.step), row.name) not in sent
    ]
    final = [Metric(metric_key(record.name, name), float(value), now, 0) for name, value in record.metrics.items()]
    log_pictures(record)
    # The figures last: by them `publish` knows that all has arrived.
    log_metrics(series + final)
