"""What finished steps leave: work folders, removed once ZenML has stored what they hold, and memory that is free."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Collection
from contextlib import suppress

from zenml.client import Client

from dreambooth3d.locks import FolderLock
from dreambooth3d.runtime import work_root
from operations.launch.stored_states import TravellingFolder


class _Ended(threading.local):
    """What the steps of one thread have left that are not known to be stored yet; a thread runs one at a time."""

    def __init__(self) -> None:
        self.locks: list[tuple[FolderLock, TravellingFolder, bool]] = []


_ended = _Ended()


def keep_until_stored(lock: FolderLock, copy: TravellingFolder, resumable: bool = False) -> None:
    """Keep the work folder of a step that has ended locked until its result is stored.

    Args:
        lock: of the folder.
        copy: of the folder.
        resumable: whether the folder stays afterwards, since the step was told to end early.
    """
    _ended.locks.append((lock, copy, resumable))


def forget_finished_work() -> None:
    """Remove the work folders of this thread's steps, whose results are stored now."""
    while _ended.locks:
        lock, copy, resumable = _ended.locks.pop()
        if resumable:
            lock.release()
        else:
            copy.forget()
            lock.remove_folder()


def forget_work_of(step_runs: Collection[str]) -> None:
    """Remove what is left of stored steps whose process ended, killed, before it had removed it.

    Args:
        step_runs: ids of steps that are stored, and from whose state nothing goes on.
    """
    for path in work_root().glob("*.lock"):
        lock = FolderLock(path.with_name(path.name.removesuffix(".lock")))
        note = lock.note()
        if note.get("step_run") in step_runs and lock.acquire():
            TravellingFolder(lock.folder, Client().active_stack.artifact_store, note).forget()
            lock.remove_folder()


def let_go_of_work() -> None:
    """Let others have the work folders of this thread's steps whose results could not be stored."""
    while _ended.locks:
        _ended.locks.pop()[0].release()


def return_free_memory() -> None:
    """Give the system back what malloc keeps of a step's memory, so that other processes have it meanwhile."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)
