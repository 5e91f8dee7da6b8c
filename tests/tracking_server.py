"""A tracking server with faults: alone, or between a client and MLflow's own server, which it passes requests on to."""

from __future__ import annotations

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HANGS, DOWN = 0, -1
"""In place of a status: no answer until the server is closed; a connection that is closed at once."""


class FaultyServer(ThreadingHTTPServer):
    """A server that answers every request with its statuses, in turn, or passes all on where it has none.

    Attributes:
        asked: requests so far.
        closing: set at the end.
    """

    daemon_threads = True

    def __init__(self, *statuses: int, upstream: str = "") -> None:
        """Start it.

        Args:
            statuses: of HTTP, `HANGS` or `DOWN`.
            upstream: the URL of MLflow's own server.
        """
        super().__init__(("127.0.0.1", 0), _Answer)
        self.upstream, self.asked, self.closing = urlsplit(upstream), 0, threading.Event()
        self.answer_with(*statuses)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer_with(self, *statuses: int) -> None:
        """From now on; with none every request is passed on."""
        self._statuses, self._answered = statuses, 0

    def next_status(self) -> int | None:
        """Of one more request."""
        self.asked += 1
        self._answered += 1
        return self._statuses[self._answered % len(self._statuses)] if self._statuses else None

    def close(self) -> None:
        """End it, and what hangs."""
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: FaultyServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = self.server.next_status()
        if status is None:
            self._pass_on(body)
        elif status == HANGS:
            self.server.closing.wait()
        elif status == DOWN:
            self.close_connection = True
        else:
            # What a proxy that wants to be left alone says.
            self._send(status, [("Retry-After", "3600")], b"")

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def _pass_on(self, body: bytes) -> None:
        connection = HTTPConnection(self.server.upstream.netloc, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = ("content-type", "content-disposition", "content-encoding")
        named = [(name, value) for name, value in answer.getheaders() if name.lower() in kept]
        self._send(answer.status, named, content)

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
