"""A server that a command starts: on a free port, for its own pages only, and ended when the command ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from dreambooth3d.errors import ConfigError

TRIED_PORTS = 50
LOCAL = ("127.0.0.1", "localhost", "::1")
REFUSAL = "This page answers its own requests only."
"""What a browser gets on behalf of another site's page."""


def free_port(host: str, port: int) -> int:
    """The first port from `port` on at which nobody listens.

    Raises:
        ConfigError: there is none among the next fifty, or the host is none of this machine's.
    """
    reason = "a port is a number up to 65535"
    for tried in range(port, min(port + TRIED_PORTS, 65536)):
        try:
            family, _, _, _, address = socket.getaddrinfo(host, tried, type=socket.SOCK_STREAM)[0]
            with socket.create_server(address, family=family):
                return tried
        except OSError as error:
            reason = error.strerror or str(error)
    raise ConfigError(f"{host}:{port}: no server can listen there ({reason}). Give another --port or --host.")


def is_own_request(host: str, named: str, origin: str | None) -> bool:
    """Whether a request comes from the server's own page: other sites' pages, shown by the same browser, get nothing.

    Args:
        host: at which the server listens.
        named: the request's header Host; at a local address another name is one that somebody else has made lead here.
        origin: its header Origin, None where it has none.
    """
    try:
        if host in LOCAL and urlsplit(f"//{named}").hostname not in LOCAL:
            return False
        return origin is None or (bool(named) and urlsplit(origin).netloc == named)
    except ValueError:  # no address at all
        return False


@contextmanager
def beside(command: Sequence[str]) -> Iterator[None]:
    """A server that runs beside what this process does, and ends with that, or with this process however it ends."""
    watched = [sys.executable, "-m", "dreambooth3d.cli.watched", *command]
    process = subprocess.Popen(watched, start_new_session=True, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_until_told(command: Sequence[str], variables: Mapping[str, str] | None = None) -> int:
    """Run a server and what it starts until it ends, or until this process ends or is told to; its exit code.

    Args:
        command: of the server.
        variables: its environment; None for that of this process.
    """
    watched = [sys.executable, "-m", "dreambooth3d.cli.watched", *command]
    process = subprocess.Popen(watched, env=variables, start_new_session=True, stdin=subprocess.PIPE)

    def end(_number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # Told to end it has done what it should.
    return 0 if code == -signal.SIGTERM else code
