"""What killed processes leave beside their runs: work folders, temporary and partial files, half-stored results.

So do old orders of the web page, by their age.

Each is told as one line, and removed only with evidence that nobody uses it: a lock that is free, a process that is
gone, a run that has ended.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from uuid import UUID

import psutil
from zenml.artifact_stores import BaseArtifactStore
from zenml.client import Client
from zenml.enums import ExecutionStatus, StackComponentType
from zenml.models import PipelineRunResponse, StackResponse
from zenml.stack import StackComponent
from zenml.utils import string_utils

from dreambooth3d import environment
from dreambooth3d.cli.web.order import old_orders
from dreambooth3d.locks import FolderLock
from dreambooth3d.runtime import work_root
from dreambooth3d.sources import library_digest
from dreambooth3d.temporary import abandoned_folders
from materializers.files import join
from operations.launch.stored_states import remove_state, stored_states
from operations.records.status import status_of
from operations.registry.retention import is_record, linked_artifacts, linked_runs, model_versions, product_runs

_WORK = re.compile(r".+-[0-9a-f]{16}")
_PARTIAL = re.compile(r"\..+?\.(\d+)(\.\d+)?\.partial")
_PARTIAL_AGE_S = 3600.0
"""A file that is younger may be that of another machine, whose processes nobody can look up here."""


@dataclass(frozen=True)
class Leftover:
    """One thing that a killed process has left.

    Attributes:
        what: it is, for a line.
        why: it may go, or stays; one sentence without a full stop.
        remove: removes it; None where it stays.
    """

    what: str
    why: str
    remove: Callable[[], None] | None


def find_leftovers(dead: Collection[str], alive: bool, states: bool) -> Iterator[Leftover]:
    """Everything that is left over.

    Args:
        dead: names of runs that have died, marked as such or about to be.
        alive: whether some run is, or may be, alive here without holding locks.
        states: whether resumable states may go as well.
    """
    yield from _work_folders(alive, states)
    for folder in abandoned_folders():
        yield Leftover(f"{folder}", "no process uses it", partial(shutil.rmtree, folder))
    yield from _partial_files()
    for folder, why in old_orders(alive):
        yield Leftover(f"{folder}", why, partial(shutil.rmtree, folder))
    runs = product_runs()
    failed = [run for run in runs if run.name in dead or status_of(run.status) == "failed"]
    yield from _half_stored(failed)
    yield from _states_in_store({run.name for run in runs if status_of(run.status) == "running"} - {*dead}, states)
    yield from _empty_versions({run.id for run in failed}, {run.id for run in runs})


def _work_folders(alive: bool, states: bool) -> Iterator[Leftover]:
    root = work_root()
    entries = sorted(root.iterdir()) if root.is_dir() else []
    names = {entry.name.removesuffix(".lock") for entry in entries}
    for name in sorted(name for name in names if _WORK.fullmatch(name)):
        lock = FolderLock(root / name)
        if not lock.acquire():
            note = lock.note()
            yield Leftover(f"{lock.folder}", f"run {note.get('run')} (process {note.get('pid')}) uses it", None)
            continue
        lock.release()
        if lock.folder.is_dir():
            yield _work_folder(lock, alive, states)


def _work_folder(lock: FolderLock, alive: bool, states: bool) -> Leftover:
    """Finished work and what no code can go on from may go; an unfinished stage's state is worth its time."""
    note, what = lock.note(), f"{lock.folder} ({_mebibytes(lock.folder):.0f} MiB)"
    if not note:
        reason = "an earlier release has made it, and this one goes on from nothing in it"
        return Leftover(what, "runs of an earlier release may use it", None) if alive else _removal(what, reason, lock)
    if _is_stored(str(note.get("step_run"))):
        return _removal(what, f"run {note['run']} has stored its result", lock)
    if note.get("library") != library_digest():
        return _removal(what, f"run {note['run']} has made it with other code, from which nothing goes on", lock)
    if states:
        return _removal(what, f"run {note['run']} has not finished this stage", lock)
    why = f"run {note['run']} has not finished this stage, and the same command goes on from it; --states removes it"
    return Leftover(what, why, None)


def _removal(what: str, why: str, lock: FolderLock) -> Leftover:
    def remove() -> None:
        if lock.acquire():  # unless somebody has begun to use it
            lock.remove_folder()

    return Leftover(what, why, remove)


def _is_stored(step_run: str) -> bool:
    try:
        return Client().get_run_step(UUID(step_run)).status.is_successful
    except (KeyError, ValueError):  # deleted
        return False


def _mebibytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _partial_files() -> Iterator[Leftover]:
    """Files in the making that name the process that was making them."""
    home = environment.home()
    flat = (".zenconfig", ".zen", ".dreambooth3d/masks")
    found = [*work_root().rglob(".*.partial"), *(path for name in flat for path in (home / name).glob(".*.partial"))]
    for path in sorted(found):
        match = _PARTIAL.fullmatch(path.name)
        if match and not psutil.pid_exists(int(match[1])) and time.time() - path.stat().st_mtime > _PARTIAL_AGE_S:
            yield Leftover(f"{path}", f"its process {match[1]} is gone", partial(path.unlink, missing_ok=True))


def _half_stored(runs: Collection[PipelineRunResponse]) -> Iterator[Leftover]:
    """What steps that failed have put into the artifact store, and ZenML has never come to know."""
    for run in runs:
        for step in run.steps.values():
            unknown = step.status in (ExecutionStatus.FAILED, ExecutionStatus.RUNNING) and not step.outputs
            if not unknown or run.stack is None:
                continue
            store = _store(run.stack)
            for output in step.config.outputs:
                place = join(store.path, step.name, string_utils.sanitize_uri_path_component(output), str(step.id))
                if _holds_files(store, place) and not _versions_below(place):
                    yield Leftover(place, f"run {run.name} ended while it was storing it", partial(store.rmtree, place))


def _states_in_store(running: Collection[str], states: bool) -> Iterator[Leftover]:
    """What an unfinished stage would go on from on another machine; as in the work folder it is worth its time."""
    store = _active_store()
    for state in stored_states(store):
        run, remove = state.note.get("run"), partial(remove_state, store, state.place)
        if run in running:
            yield Leftover(state.place, f"run {run} uses it", None)
        elif _is_stored(str(state.note.get("step_run"))):
            yield Leftover(state.place, f"run {run} has stored its result", remove)
        elif states:
            yield Leftover(state.place, f"run {run} has not finished this stage", remove)
        else:
            why = "the same command goes on from it on any machine; --states removes it"
            yield Leftover(state.place, f"run {run} has not finished this stage, and {why}", None)


def _holds_files(store: BaseArtifactStore, place: str) -> bool:
    return store.exists(place) and any(files for _, _, files in store.walk(place))


def _versions_below(place: str) -> bool:
    return bool(Client().list_artifact_versions(uri=f"startswith:{place}", size=1).items)


def _store(stack: StackResponse) -> BaseArtifactStore:
    return cast(BaseArtifactStore, StackComponent.from_model(stack.components[StackComponentType.ARTIFACT_STORE][0]))


def _active_store() -> BaseArtifactStore:
    return Client().active_stack.artifact_store


def _empty_versions(failed: Collection[UUID], known: Collection[UUID]) -> Iterator[Leftover]:
    """ZenML makes a version when a run begins."""
    for version in model_versions():
        runs = linked_runs(version)
        ended = bool(runs) and all(run in failed or run not in known for run in runs)
        if ended and not is_record(version) and version.stage is None and not linked_artifacts(version):
            yield Leftover(
                f"version {version.number} of {version.model.name}", "its run failed before it had made anything",
                partial(Client().delete_model_version, version.id),
            )  # fmt: skip
