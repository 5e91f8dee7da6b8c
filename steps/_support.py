"""What every step shares: its surroundings, its clock, its stop signal, and its report to MLflow."""

from __future__ import annotations

import dataclasses
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import torch

import materializers  # noqa: F401  (registers them)
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime, pick_device, work_folder
from dreambooth3d.sources import library_digest
from materializers.hashing import content_hash
from materializers.healing import recomputed_if_damaged
from operations.launch.finished_work import keep_until_stored
from operations.records.tracking import LiveSeries, log_record_if_possible

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Artifact = TypeVar("Artifact", bound="DataclassInstance")
Inputs = ParamSpec("Inputs")


class StepSession:
    """One running step.

    Attributes:
        runtime: what the library gets.
    """

    def __init__(self, runtime: Runtime, live: LiveSeries) -> None:
        self.runtime = runtime
        self._live = live
        self._start = time.monotonic()

    def finish(self, artifact: Artifact) -> Artifact:
        """Add the step's duration to its record, send the record to MLflow, and return the artifact with it."""
        log = self.runtime.log
        log.metrics(seconds=time.monotonic() - self._start)
        if self.runtime.device.type == "cuda":
            log.metrics(peak_memory_mib=torch.cuda.max_memory_reserved() / 2**20)
        if self.runtime.should_stop():
            log.params(interrupted=True)
            _never_cache_this_step()
        else:
            keep_until_stored(self.runtime.folder)
        self._live.flush()
        record = log.record()
        log_record_if_possible(record, self._live.sent)
        return dataclasses.replace(artifact, record=record)


def run_stage(
    stage: Callable[Concatenate[Runtime, Inputs], Artifact], device: str, *inputs: Inputs.args, **options: Inputs.kwargs
) -> Artifact:
    """Run a stage of the library as the present step: its resumable state is kept under the hash of all its inputs.

    Args:
        stage: one of `dreambooth3d.stages`, whose result has a record.
        device: auto, cpu or cuda.
        inputs, options: what the stage takes after its surroundings.
    """
    with step_session(step_name(), device, *inputs, *options.values()) as session:
        return session.finish(stage(session.runtime, *inputs, **options))


def step_name() -> str:
    """The name under which the pipeline runs the present step; it ends in a number where that is once per context."""
    from zenml.steps import get_step_context

    return str(get_step_context().step_run.name)


def origin() -> dict[str, str]:
    """The present pipeline run and its commit."""
    from zenml.steps import get_step_context

    run = get_step_context().pipeline_run
    return {"run": run.name, "commit": str(run.config.extra.get("git_commit", ""))}


@contextmanager
def step_session(name: str, device: str, *inputs: object) -> Iterator[StepSession]:
    """Set up a step's surroundings.

    Args:
        name: of the step, the prefix of its keys.
        device: auto, cpu or cuda.
        inputs: everything that the result depends on; the resumable state is kept under its hash.
    """
    live = LiveSeries(name)
    folder = work_folder(name, device, library_digest(), *(content_hash(value) for value in inputs))
    with recomputed_if_damaged(), stop_signal() as should_stop:
        runtime = Runtime(StepLog(name, live), folder, pick_device(device), should_stop, origin=origin())
        if runtime.device.type == "cuda":
            # What the step before has left in cycles would count as this one's, and take its memory.
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield StepSession(runtime, live)


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Own SIGINT and SIGTERM: the first asks the stage to finish early, the second stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _never_cache_this_step() -> None:
    """An interrupted result must not answer a later run."""
    from zenml.client import Client
    from zenml.steps import get_step_context
    from zenml.utils.time_utils import utc_now

    Client().update_step_run(get_step_context().step_run.id, cache_expires_at=utc_now())
