"""Which process runs a pipeline, and whether it still does."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import psutil

PROCESS = "process"
"""Under which a run's configuration notes its process."""
_CLOCK_TOLERANCE_S = 2.0


def this_process() -> dict[str, str | int | float]:
    """What identifies this process, also after its number was given to another one: host, pid, start time."""
    return {"host": this_host(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def this_host() -> str:
    """This machine and process namespace: two containers that share a host's name are two hosts."""
    return f"{socket.gethostname()}/{_digest(_machine())}"


def _machine() -> str:
    """The machine's own id and the number of the process namespace, where there are such."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    found = [path.read_text().strip() for path in (Path("/etc/machine-id"),) if path.is_file()]
    return "/".join([*found, namespace])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_here(process: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a note of a process means one of this machine."""
    return isinstance(process, Mapping) and process.get("host") == this_host()


def is_alive(process: Mapping[str, object]) -> bool:
    """Whether a process of this machine runs; a number is given again, and the start time tells the two apart."""
    try:
        found = psutil.Process(int(str(process["pid"])))
        same = abs(found.create_time() - float(str(process["started"]))) < _CLOCK_TOLERANCE_S
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
