"""The process that commands of tests are forked from: another takes its place when it has died."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.warm import WarmProcess

STAND_IN = """
import json, os, signal, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["arguments"] == ["die"]:
        os.kill(os.getpid(), signal.SIGKILL)
    open(request["out"], "w").write(f"{os.getpid()} in {request['folder']}")
    open(request["err"], "w").close()
    print(7, flush=True)
"""
"""Takes requests as the real one does, and imports nothing."""


def test_another_takes_the_place_of_one_that_has_died(tmp_path: Path) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    warm = WarmProcess(os.environ, script)

    def answers() -> int:
        result = warm.run(["anything"], tmp_path, os.environ)
        assert result.returncode == 7 and result.stdout == f"{warm.process.pid} in {tmp_path}"
        return warm.process.pid

    first = answers()
    assert answers() == first
    with pytest.raises(RuntimeError, match=r"has died \(-9\) at \['die'\]"):
        warm.run(["die"], tmp_path, os.environ)
    second = answers()
    assert second != first and answers() == second
    os.kill(second, signal.SIGKILL)
    warm.process.wait()
    assert answers() != second
    warm.process.kill()
    warm.process.wait()
