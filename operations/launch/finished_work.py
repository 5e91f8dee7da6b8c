"""The work folders of a process' finished steps, which go once their run has stored everything."""

from __future__ import annotations

import shutil
from pathlib import Path

_finished: list[Path] = []


def keep_until_stored(folder: Path) -> None:
    """Remember the work folder of a step that has finished."""
    _finished.append(folder)


def forget_finished_work() -> None:
    """Remove the work folders of this process' finished steps, once their run has stored everything."""
    while _finished:
        shutil.rmtree(_finished.pop(), ignore_errors=True)
