"""A Hugging Face hub on the loopback, which the real client talks to: model information, file list, files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class Hub:
    """What it holds, and what it was asked for.

    Attributes:
        models: by id, a folder per commit; the last commit is `main`.
        requests: paths asked for so far.
        cache: the client's cache.
    """

    cache: Path
    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, hub_id: str, folder: Path) -> str:
        """Publish a folder as the newest commit of a model; returns the commit."""
        commits = self.models.setdefault(hub_id, {})
        commit = hashlib.sha1(f"{hub_id} {len(commits)}".encode()).hexdigest()
        commits[commit] = folder
        return commit

    def downloads(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {path.split("/resolve/")[1].partition("/")[2] for path in self.requests if "/resolve/" in path}

    def files(self, hub_id: str, revision: str) -> tuple[str, Path] | None:
        """Commit and folder of a revision."""
        commits = self.models.get(hub_id, {})
        found = [commit for commit in commits if commit == revision or revision == "main"]
        return (found[-1], commits[found[-1]]) if found else None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def log_message(self, *args: object) -> None:
        """No lines among the test's output."""

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(path)
        if path.startswith("/api/models/"):
            body, commit = self._information(path.removeprefix("/api/models/").split("/"))
        else:
            owner, name, _, revision, *parts = path.strip("/").split("/")
            body, commit = self._content(f"{owner}/{name}", revision, "/".join(parts))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body or b"")

    def _information(self, parts: list[str]) -> tuple[bytes | None, str]:
        hub_id, kind, revision = "/".join(parts[:2]), *(parts[2:4] or ["revision", "main"])
        found = self.hub.files(hub_id, revision)
        if found is None:
            return None, ""
        commit, folder = found
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        if kind == "tree":
            entries = [
                {
                    "type": "file",
                    "path": name,
                    "size": path.stat().st_size,
                    "oid": hashlib.sha1(name.encode()).hexdigest(),
                }
                for name, path in zip(names, files, strict=True)
            ]
            return json.dumps(entries).encode(), commit
        siblings = [{"rfilename": name} for name in names]
        return json.dumps({"id": hub_id, "sha": commit, "siblings": siblings}).encode(), commit

    def _content(self, hub_id: str, revision: str, name: str) -> tuple[bytes | None, str]:
        found = self.hub.files(hub_id, revision)
        return (None, "") if found is None else ((found[1] / name).read_bytes(), found[0])


@contextmanager
def running_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve an empty hub, and let the hub's client in this process know no other one and no other cache."""
    from huggingface_hub import constants

    hub = Hub(cache)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    yield hub
    server.shutdown()
    server.server_close()
