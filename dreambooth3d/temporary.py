"""Temporary folders whose owner shows: what a killed process leaves can be told from what another one uses."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "dreambooth3d-"


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder in another one, by default where temporary files lie, locked while in use, and removed afterwards."""
    folder, handle = _make(parent)
    try:
        yield folder
    finally:
        _remove(folder, handle)


def temporary_folder_until_exit() -> Path:
    """The same, until this process ends."""
    folder, handle = _make(None)
    atexit.register(_remove, folder, handle)
    return folder


def _make(parent: Path | None) -> tuple[Path, int]:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    handle = os.open(folder, os.O_RDONLY)
    _lock(handle)
    return folder, handle


def _remove(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


@contextmanager
def temporary_files_inside(folder: Path) -> Iterator[None]:
    """Let everything in this process, other libraries too, put its temporary files into a folder for a while."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def abandoned_folders() -> list[Path]:
    """This user's temporary folders of ours that no process uses any more."""
    mine = [path for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink()]
    return sorted(path for path in mine if path.stat().st_uid == os.getuid() and _is_free(path))


def _is_free(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    try:
        return _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether the lock could be taken; where the file system knows no locks, nobody can tell, and it could not."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
