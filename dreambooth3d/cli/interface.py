"""`dreambooth3d ui`: MLflow's pages, opened at the rows of this product's runs."""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser

import typer

from dreambooth3d.cli.server import free_port, run_until_told
from operations.records.row import VIEW

STARTS_WITHIN_S = 60.0
JOBS = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"


def show(port: int, host: str, open_browser: bool | None) -> int:
    """Serve the pages until told to end, or name those of a server; the exit code.

    Args:
        port: to begin with; the next free one is taken.
        host: on which to listen.
        open_browser: None opens one where there is a screen and somebody at the terminal.
    """
    from operations.records.rows import tracking_uri

    uri = tracking_uri()
    wanted = _has_screen() if open_browser is None else open_browser
    page = f"#/experiments{_runs_of_experiment()}?{VIEW}"
    if uri.startswith(("http://", "https://")):
        address = f"{uri.rstrip('/')}/{page}"
        typer.echo(f"The rows are on a server: {address}")
        if wanted:
            webbrowser.open(address)
        return 0
    free = free_port(host, port)
    if free != port:
        typer.echo(f"Port {port} is in use; the next free one is {free}.")
    base = f"http://{host}:{free}/"
    print(f"Runs: {base}{page}", flush=True)
    typer.echo("MLflow is starting.", err=True)
    threading.Thread(target=_tell_when_ready, args=(base, page if wanted else None), daemon=True).start()
    server = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command = [*server, "--host", host, "--port", str(free), "--workers=1"]
    return run_until_told(command, server_variables())


def server_variables() -> dict[str, str]:
    """The environment of MLflow's server: without the processes that run its jobs, unless the user has asked for them.

    Jobs are evaluations by language models and improvements of prompts; nothing on the pages of this product's rows is
    one.
    """
    return {JOBS: "false", **os.environ}


def _runs_of_experiment() -> str:
    """The part of an address that names the runs' experiment; empty where there is none yet, or nobody answers."""
    from operations.records.patience import briefly
    from operations.records.rows import EXPERIMENT, client

    try:
        with briefly():
            found = client().get_experiment_by_name(EXPERIMENT)
    except Exception:  # whatever keeps the tracker from answering, the pages themselves say
        return ""
    return f"/{found.experiment_id}/runs" if found else ""


def _has_screen() -> bool:
    """Whether a browser would open in a window, for somebody who is there."""
    there = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return there and sys.stdout.isatty()


def _tell_when_ready(base: str, page: str | None) -> None:
    """Say when the server answers, and open a page of it, if any."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base}health", timeout=1):
                break
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    else:
        return
    typer.echo("MLflow answers. Ctrl+C ends it.", err=True)
    if page is not None:
        webbrowser.open(f"{base}{page}")
