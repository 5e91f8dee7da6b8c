"""What a signal does to a step: the first is answered, the second ends it."""

from __future__ import annotations

import os
import signal

import pytest

from steps._support import stop_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_answered_in_one_line_and_the_second_ends_the_step(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with stop_signal() as told:
        assert not told()
        os.kill(os.getpid(), number)
        assert told()
        said = capfd.readouterr()
        assert said.out == "" and len(said.err.strip().splitlines()) == 1
        assert "ends as soon as it can" in said.err and "Ctrl+C" in said.err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert capfd.readouterr().err == ""
    assert signal.getsignal(number) is before
