"""How `dreambooth3d doctor` reads the lock file."""

from __future__ import annotations

import sys
from pathlib import Path

from dreambooth3d.cli.doctor import _pinned


def test_lines_whose_marker_does_not_hold_are_not_wanted() -> None:
    here, elsewhere = f'sys_platform == "{sys.platform}"', 'sys_platform == "atari"'
    lock = f"# six==1.0\nfirst-name==1.2.3\n\nsecond==2.0; {here}\nthird==3.0; {elsewhere}\n"
    assert _pinned(lock) == {"first-name": "1.2.3", "second": "2.0"}


def test_every_line_of_the_lock_file_is_read() -> None:
    text = (Path(__file__).parents[2] / "requirements.lock").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    always = [line.split("==") for line in lines if ";" not in line]
    pinned = _pinned(text)
    assert dict(always).items() <= pinned.items() and "triton" not in dict(always)
    assert len(always) <= len(pinned) <= len(lines)
