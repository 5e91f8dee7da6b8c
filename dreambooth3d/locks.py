"""The sole use of a folder: a lock that the operating system lets go of when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path


class FolderLock:
    """The sole use of a folder, by a lock on the file `<folder>.lock` beside it, which says who has it.

    The file goes with the folder: it stays, as a note, only where the folder does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.with_name(f"{folder.name}.lock")
        self._file: TextIOWrapper | None = None

    def acquire(self, note: Mapping[str, str | int] | None = None) -> bool:
        """Take the lock if nobody has it.

        Args:
            note: who takes it, and for what; without one an older note stays.

        Returns:
            Whether it was taken. Where the file system knows no locks, it always is.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError:  # no locks here
            pass
        if not _is_at(file, self.path):  # whoever had it has removed the file meanwhile
            file.close()
            return self.acquire(note)
        if note is not None:
            file.truncate(0)
            file.write(json.dumps(dict(note)))
            file.flush()
        self._file = file
        return True

    def note(self) -> dict[str, str | int]:
        """What the holder, or the last one, has said of itself; empty where nothing is known."""
        with suppress(OSError, ValueError):
            found = json.loads(self.path.read_text())
            return found if isinstance(found, dict) else {}
        return {}

    def remove_folder(self) -> None:
        """Remove the folder, of which this is the sole user, and let go of the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of the lock; without effect where it is not held."""
        file, self._file = self._file, None
        if file is None:
            return
        if not self.folder.exists():
            self.path.unlink(missing_ok=True)
        file.close()


def _is_at(file: TextIOWrapper, path: Path) -> bool:
    """Whether an open file is the one that a path names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
