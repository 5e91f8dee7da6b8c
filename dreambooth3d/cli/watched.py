"""`python -m dreambooth3d.cli.watched COMMAND`: run it, and end it with whoever has started this, even by kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def _end_with_starter() -> None:
    """The starter holds the other end of the standard input, and lets go of it however it ends."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> int:
    """Run the command of the arguments; its exit code, 0 where it was told to end."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    # What tells the whole group to end is meant for the command, which is waited for.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_starter, daemon=True).start()
    code = process.wait()
    return 0 if code == -signal.SIGTERM else abs(code)


if __name__ == "__main__":
    sys.exit(main())
