"""From a step's record to its keys in MLflow: `<step>.<name>` for parameters, `<step>/<name>` for the rest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

import mlflow
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from dreambooth3d.errors import gist
from dreambooth3d.record import StepRecord

_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_PARAM_LENGTH = 6000

logger = logging.getLogger(__name__)
Point = tuple[int, str]
PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
UNREACHABLE = (
    "%s: MLflow did not take figures (%s). The stage goes on; all of them are in its record, from which the run's row "
    "is completed at its end."
)


class LiveSeries:
    """Sends points of time series to the active MLflow run, in batches, so that loops hardly wait for it.

    A tracker that is away costs a warning and nothing else: the points are in the step's record as well, and are sent
    with it. It is asked again after `PAUSE_S`, then ever less often.

    Attributes:
        sent: the points that have arrived.
    """

    def __init__(self, step_name: str, batch: int = 300, interval_s: float = 5.0) -> None:
        self.step_name = step_name
        self.sent: set[Point] = set()
        self._batch, self._interval_s = batch, interval_s
        self._waiting: list[Metric] = []
        self._last = time.monotonic()
        self._failures, self._paused_until = 0, 0.0

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point per named series; this is a `StepLog` listener."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(f"{self.step_name}/{name}", value, now, step) for name, value in values.items()]
        if len(self._waiting) >= self._batch or time.monotonic() - self._last > self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting, if the tracker answers."""
        waiting, self._waiting, self._last = self._waiting, [], time.monotonic()
        if time.monotonic() < self._paused_until:
            return
        try:
            log_metrics(waiting)
        # A database that is locked, a server that is away, slow or overloaded: each raises errors of its own.
        except Exception as error:
            if self._failures == 0:
                logger.warning(UNREACHABLE, self.step_name, gist(error))
            self._failures += 1
            self._paused_until = time.monotonic() + min(LONGEST_PAUSE_S, PAUSE_S * 2**self._failures)
        else:
            begin = len(self.step_name) + 1
            self.sent.update((metric.step, metric.key[begin:]) for metric in waiting)


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
        log_record(record, sent)
    except Exception as error:
        logger.warning(UNREACHABLE, record.name, gist(error))
        # ZenML ends the row before it stores what the step has made, and would lose that with the row.
        with suppress(Exception):
            mlflow.end_run()


def log_record(record: StepRecord, sent: Collection[Point] = ()) -> None:
    """Log a step's parameters, metrics, series and images to the active run.

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
    final = [Metric(f"{record.name}/{name}", float(value), now, 0) for name, value in record.metrics.items()]
    for name, image in record.images.items():
        mlflow.log_image(image.numpy(), key=f"{record.name}/{name}", step=0, synchronous=True)
    # The figures last: by them `publish` knows that all has arrived.
    log_metrics(series + final)
