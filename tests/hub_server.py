"""A Hugging Face hub on the loopback, which the real client talks to: model information, files, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
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
        gated: ids of models whose owner grants access.
        cut: names of files of which half is sent, once.
        writers: tokens that may write.
        private: ids of models that were made for their owner alone.
        pushed: where the files of commits lie.
    """

    cache: Path
    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    writers: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    pushed: Path = Path()
    objects: dict[str, bytes] = field(default_factory=dict)

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

    def do_POST(self) -> None:
        """What an upload asks for: the model made, its card checked, how files are sent, and the commit."""
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(path)
        sent = self._body()
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.hub.writers:
            self._json({"error": "no right to write"}, 403)
        elif path == "/api/repos/create":
            wanted = json.loads(sent)
            hub_id = f"{wanted['organization']}/{wanted['name']}"
            known = hub_id in self.hub.models
            if not known and wanted.get("visibility") == "private":
                self.hub.private.add(hub_id)
            self.hub.models.setdefault(hub_id, {})
            self._json({"url": f"{self.hub.url}/{hub_id}"}, 409 if known else 200)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(sent)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            files = [
                {"path": name, "uploadMode": mode, "shouldIgnore": False}
                for name, mode in zip(names, modes, strict=True)
            ]
            self._json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                each | {"actions": {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}}
                for each in json.loads(sent)["objects"]
            ]
            self._json({"objects": objects, "transfer": "basic"})
        else:
            self._commit("/".join(path.split("/")[3:5]), [json.loads(line) for line in sent.splitlines()])

    def do_PUT(self) -> None:
        """A large file's content, under its SHA-256."""
        content, name = self._body(), self.path.rpartition("/")[2]
        right = hashlib.sha256(content).hexdigest() == name
        if right:
            self.hub.objects[name] = content
        self._json({}, 200 if right else 400)

    def _commit(self, hub_id: str, lines: list[dict]) -> None:
        folder = self.hub.pushed / f"{hub_id.replace('/', '--')}-{len(self.hub.models[hub_id])}"
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                continue
            content = self.hub.objects[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
            (folder / value["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / value["path"]).write_bytes(content)
        commit = self.hub.add(hub_id, folder)
        address = f"{self.hub.url}/{hub_id}/commit/{commit}"
        self._json({"success": True, "commitUrl": address, "commitOid": commit, "hookOutput": ""})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """No lines among the test's output."""

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(path)
        if path.startswith("/api/models/"):
            parts = path.removeprefix("/api/models/").split("/")
            hub_id, (body, commit) = "/".join(parts[:2]), self._information(parts)
        else:
            owner, name, _, revision, *parts = path.strip("/").split("/")
            hub_id = f"{owner}/{name}"
            body, commit = self._content(hub_id, revision, "/".join(parts))
            if with_body and body is not None and parts[-1] in self.hub.cut:
                self.hub.cut.remove(parts[-1])
                self._cut_off(body)
                return
        gated = hub_id in self.hub.gated and not path.startswith("/api/models/")
        body = None if gated else body
        self.send_response(403 if gated else 404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        if body is None:
            missing = "RevisionNotFound" if hub_id in self.hub.models else "RepoNotFound"
            self.send_header("X-Error-Code", "GatedRepo" if gated else missing)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body or b"")

    def _cut_off(self, body: bytes) -> None:
        """Half of a file, then the end of the connection."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

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

    hub = Hub(cache, pushed=cache.parent / "pushed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    yield hub
    server.shutdown()
    server.server_close()
