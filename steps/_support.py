"""What every step shares: its surroundings, its clock, its stop signal, and its report to MLflow."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import torch

import materializers  # noqa: F401  (registers them)
from dreambooth3d.errors import ArtifactError
from dreambooth3d.faults import in_one_sentence
from dreambooth3d.live import live_folder
from dreambooth3d.locks import FolderLock
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.runtime import Runtime, pick_device, work_folder
from dreambooth3d.sources import library_digest
from materializers.hashing import content_hash
from materializers.healing import recomputed_if_damaged
from operations.launch.finished_work import keep_until_stored, let_go_of_work
from operations.launch.stored_states import TravellingFolder
from operations.records.tracking import LiveSeries, log_record_if_possible

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)
LOOK_S = 0.5
STDERR = 2
STOPPING = (
    "\nThis stage ends as soon as it can, and the run goes on with what it has. Once more (Ctrl+C) ends the run at "
    "once; the same command then goes on with it.\n"
)
Artifact = TypeVar("Artifact", bound="DataclassInstance")
Inputs = ParamSpec("Inputs")


class StepSession:
    """One running step.

    Attributes:
        runtime: what the library gets.
        taken: the outputs of another run's step of the same inputs, for whose end this one has waited; None where there
            is none, and the step has to do its work.
    """

    def __init__(
        self,
        runtime: Runtime,
        live: LiveSeries,
        lock: FolderLock,
        copy: TravellingFolder,
        taken: tuple[Any, ...] | None,
    ) -> None:
        self.runtime, self.taken = runtime, taken
        self._live, self._lock, self._copy = live, lock, copy
        self._start = time.monotonic()

    def finish(self, artifact: Artifact) -> Artifact:
        """Add the step's duration to its record, send the record to MLflow, and return the artifact with it."""
        log = self.runtime.log
        log.metrics(seconds=time.monotonic() - self._start)
        log.metrics(process_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
        if self.runtime.device.type == "cuda":
            log.metrics(peak_memory_mib=torch.cuda.max_memory_reserved() / 2**20)
        if self.runtime.should_stop():
            log.params(interrupted=True)
            _never_cache_this_step()
            self._copy.keep(now=True)
        keep_until_stored(self._lock, self._copy, resumable=self.runtime.should_stop())
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
        if session.taken is not None:
            return cast(Artifact, session.taken[0])
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
    let_go_of_work()
    live = LiveSeries(name)
    folder = work_folder(name, device, library_digest(), *(content_hash(value) for value in inputs))
    with (
        recomputed_if_damaged(),
        in_one_sentence(name),
        stop_signal() as should_stop,
        _alone(folder, should_stop) as (lock, waited),
    ):
        copy = _copy_in_store(folder)
        copy.fetch()
        log = StepLog(name, live, live_folder(name))
        runtime = Runtime(log, folder, pick_device(device), should_stop, True, origin(), copy.keep)
        if runtime.device.type == "cuda":
            # What the step before has left in cycles would count as this one's, and take its memory.
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        taken = _stored_meanwhile() if waited else None
        if taken is not None:
            keep_until_stored(lock, copy)
        yield StepSession(runtime, live, lock, copy, taken)


def _copy_in_store(folder: Path) -> TravellingFolder:
    """The copy of a work folder in the active stack's artifact store, where that is remote."""
    from zenml.client import Client

    return TravellingFolder(folder, Client().active_stack.artifact_store, _note())


def _note() -> dict[str, str | int]:
    """Which run and step use a work folder, and with which code."""
    from zenml.steps import get_step_context

    context = get_step_context()
    run, step = context.pipeline_run.name, str(context.step_run.id)
    return {"run": run, "pid": os.getpid(), "step_run": step, "library": library_digest()}


@contextmanager
def _alone(folder: Path, should_stop: Callable[[], bool]) -> Iterator[tuple[FolderLock, bool]]:
    """Wait until no other run computes the same in a work folder; gives the lock, and whether that took a while.

    A step that has ended keeps the lock until its result is stored.
    """
    from zenml.steps import get_step_context

    lock, waited, name = FolderLock(folder), False, get_step_context().step_run.name
    while not lock.acquire(_note()):
        if not waited:
            holder = lock.note()
            who = f"run {holder.get('run', 'unknown')} (process {holder.get('pid', 'unknown')})"
            logger.info("%s: %s computes the same at present. This run waits for it, to take its result.", name, who)
            waited = True
        if should_stop():
            raise KeyboardInterrupt
        time.sleep(LOOK_S)
    try:
        yield lock, waited
    except BaseException:
        lock.release()
        raise


def _stored_meanwhile() -> tuple[Any, ...] | None:
    """What the step that this one has waited for has stored, if that may answer it; its record goes to MLflow.

    ZenML asks its cache before a step begins, when the other one had not finished.
    """
    from zenml.orchestrators.cache_utils import get_cached_step_run
    from zenml.orchestrators.utils import is_setting_enabled
    from zenml.steps import get_step_context

    context = get_step_context()
    step, of_all = context.step_run, context.pipeline_run.config.enable_cache
    if not step.cache_key or not is_setting_enabled(step.config.enable_cache, of_all):
        return None
    found = get_cached_step_run(step.cache_key)
    if found is None:
        return None
    try:
        values = tuple(found.outputs[name][0].load() for name in step.config.outputs)
    except ArtifactError as error:
        logger.warning("%s This step computes it again.", error)
        return None
    for value in values:
        if isinstance(record := getattr(value, "record", None), StepRecord):
            log_record_if_possible(dataclasses.replace(record, name=step.name))
    return values


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
        with suppress(OSError):
            os.write(STDERR, STOPPING.encode())  # print may not be used in here: a signal may come amid another one

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
