"""What `dreambooth3d ui` starts: MLflow's server, without the processes for jobs that nothing here gives."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dreambooth3d.cli import interface

KEEPS = '#!/bin/sh\nprintf "%s %s" "$MLFLOW_SERVER_ENABLE_JOB_EXECUTION" "$*" > "{file}"\n'
"""Stands for the interpreter that runs the server, and notes how it was started."""


@pytest.mark.parametrize("users, expected", [(None, "false"), ("true", "true")])
def test_jobs_run_only_for_who_has_asked_for_them(
    users: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, said = tmp_path / "python", tmp_path / "said"
    python.write_text(KEEPS.format(file=said))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("operations.records.rows.tracking_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(interface, "_runs_of_experiment", lambda: "")
    if users is None:
        monkeypatch.delenv(interface.JOBS, raising=False)
    else:
        monkeypatch.setenv(interface.JOBS, users)
    assert interface.show(47510, "127.0.0.1", open_browser=False) == 0
    value, _, command = said.read_text().partition(" ")
    assert value == expected and " mlflow ui --backend-store-uri sqlite:///" in command


def test_mlflow_knows_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that its own server reads, whose default is to run jobs."""
    from mlflow.environment_variables import MLFLOW_SERVER_ENABLE_JOB_EXECUTION as known

    monkeypatch.delenv(known.name, raising=False)
    assert known.get() is True
    monkeypatch.setenv(known.name, interface.server_variables()[known.name])
    assert known.get() is False


def test_it_is_said_when_the_server_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, asked = [], []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) == 1 else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setattr(interface.webbrowser, "open", opened.append)
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        interface._tell_when_ready(base, None)
        assert asked == ["/health", "/health"] and not opened
        interface._tell_when_ready(base, "#/runs")
        server.shutdown()
    assert opened == [f"{base}#/runs"] and capsys.readouterr().err.count("MLflow answers. Ctrl+C ends it.") == 2
