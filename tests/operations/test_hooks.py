"""Notifications: what they say, where they go, and that they never fail a run or give away their address."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from operations.records.hooks import WEBHOOK, notify, without_secrets
from tests.operations.toy import run_toy

TOKEN = "s3cr3t-path"


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """A real server that keeps what is posted; paths that end in /broken are answered by 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.received.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(500 if self.path.endswith("/broken") else 204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def address(server: HTTPServer, end: str = "") -> str:
    return f"http://127.0.0.1:{server.server_port}/{TOKEN}{end}"


def read_file(home: Path) -> list[dict[str, object]]:
    path = home / "outputs" / "notifications.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_good_run_is_one_line_in_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    before = len(read_file(home))
    run = run_toy(subject="corgi", seed=11)
    (message,) = read_file(home)[before:]
    assert (message["run"], message["status"], message["subject"]) == (run.name, "completed", "corgi")
    assert message["error"] is None
    # The tracker is a database here, so the row has an id and no page.
    from operations.records.rows import find_row

    assert message["mlflow_run_id"] == find_row(run.name).info.run_id
    assert message["mlflow_url"] is None


def test_a_failed_run_is_posted_with_the_errors_first_line(
    home: Path, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEBHOOK, address(receiver))
    before = len(read_file(home))
    with pytest.raises(Exception):  # noqa: B017  (ZenML chooses the type)
        run_toy(subject="tugboat", seed=11, fail=True)
    ((kind, message),) = receiver.received
    assert kind == "application/json"
    assert (message["status"], message["subject"], message["step"]) == ("failed", "tugboat", "finish")
    assert message["error"] == "the field became empty"
    assert len(read_file(home)) == before


def test_a_broken_webhook_fails_no_run_and_is_not_named(
    home: Path, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WEBHOOK, address(receiver, "/broken"))
    with caplog.at_level(logging.DEBUG):
        run = run_toy(subject="corgi", seed=11)
        assert not notify({"run": "by hand"})
    assert run.status.is_successful
    assert "HTTPError 500" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("place", ["file:///tmp/nothing", "http://127.0.0.1:9/" + TOKEN, "nonsense"])
def test_an_address_that_cannot_be_reached(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WEBHOOK, place)
    assert not notify({"run": "by hand"})
    assert TOKEN not in caplog.text and place not in caplog.text


def test_errors_do_not_carry_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, "https://hooks.example.org/services/T0/B0/abc")
    text = "https://hooks.example.org/services/T0/B0/abc and postgresql://mlflow:pass@db:5432/mlflow"
    assert without_secrets(text) == "$DREAMBOOTH3D_WEBHOOK and postgresql://db:5432/mlflow"
