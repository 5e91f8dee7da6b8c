"""The sole use of a folder, between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dreambooth3d.locks import FolderLock

HOLD = (
    "import sys, time; from pathlib import Path; from dreambooth3d.locks import FolderLock\n"
    "lock = FolderLock(Path(sys.argv[1])); print(lock.acquire({'run': 'theirs', 'pid': 7}), flush=True); time.sleep(60)"
)


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "stage-0123"
    folder.mkdir()
    mine = FolderLock(folder)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not mine.acquire({"run": "mine"})
        assert mine.note() == {"run": "theirs", "pid": 7}
        other.kill()
    assert mine.acquire() and mine.note()["run"] == "theirs", "the note tells whose folder it was"
    mine.release()
    assert mine.acquire({"run": "mine"}) and mine.note() == {"run": "mine"}
    mine.release()
    assert mine.path.exists(), "as long as the folder"


def test_nothing_stays_where_there_is_no_folder(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "work" / "stage-0123")
    assert lock.acquire({"run": "mine"}) and not FolderLock(lock.folder).acquire()
    lock.release()
    assert not list((tmp_path / "work").iterdir())
    lock.release()


def test_a_lock_whose_file_was_removed_is_not_taken_for_one(tmp_path: Path) -> None:
    """One waits with the file open that the holder then removes: two others must not hold two files."""
    held, waiting = FolderLock(tmp_path / "stage"), FolderLock(tmp_path / "stage")
    assert held.acquire()
    opened = held.path.open("a+")
    held.release()
    assert not held.path.exists()
    with opened:
        assert waiting.acquire() and not FolderLock(tmp_path / "stage").acquire()
    waiting.release()
