"""What containers of this machine need, on loopback: ZenML server, MLflow server, S3, and a repository of photos."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.emulators import servers
from tests.emulators.servers import ROOT, free_port, running

BUCKET = "dreambooth3d"

# In place of Python, so that the process that is ended is the server. Pinned commits are fetched by their SHA-1.
_GIT_SERVER = """
import os, subprocess, sys
place = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()
os.execv(f"{place}/git-daemon", [f"{place}/git-daemon", "--export-all", "--listen=127.0.0.1", *sys.argv[1:]])
"""
_IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.com")


@dataclass(frozen=True)
class Services:
    """Where everything is.

    Attributes:
        folder: of all state.
        s3: the URL of the S3 server.
        mlflow: the URL of the MLflow server.
        zenml: the URL of the ZenML server.
        zenml_key: an API key of it.
        files: the URL under which `folder/files` is to be had.
        git: the URL under which Git repositories in there are.
    """

    folder: Path
    s3: str
    mlflow: str
    zenml: str
    zenml_key: str
    files: str
    git: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client reaches the ZenML server."""
        return {"ZENML_STORE_URL": self.zenml, "ZENML_STORE_API_KEY": self.zenml_key}


@contextmanager
def loopback_services(folder: Path) -> Iterator[Services]:
    """Start all servers, wait until they answer, and kill them at the end."""
    (folder / "files").mkdir(parents=True)
    files_port, git_port = free_port(), free_port()
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            stack.enter_context(running(folder / f"{name}.log", arguments, {}))

        start("files", "-m", "http.server", str(files_port), "--bind", "127.0.0.1", "-d", str(folder / "files"))
        start("git", "-c", _GIT_SERVER, f"--base-path={folder / 'files'}", f"--port={git_port}", str(folder / "files"))
        s3, wait_for_s3 = servers.start_s3(stack, folder, [BUCKET])
        mlflow, wait_for_mlflow = servers.start_mlflow(stack, folder, str(folder / "mlartifacts"), login=False)
        zenml, wait_for_zenml = servers.start_zenml(stack, folder)
        wait_for_s3()
        key = wait_for_zenml()
        wait_for_mlflow()
        files, git = f"http://127.0.0.1:{files_port}", f"git://127.0.0.1:{git_port}"
        yield Services(folder, s3, mlflow, zenml, key, files, git)


class PhotoRepository:
    """A Git repository with DVC-tracked photos, `photos.git`, and its DVC remote, `store`, both served on loopback."""

    def __init__(self, services: Services, subjects: tuple[str, ...]) -> None:
        """Make it with copies of shipped photos.

        Args:
            services: that serve it.
            subjects: names of shipped photo sets.
        """
        self._bare, self._store = services.folder / "files" / "photos.git", services.folder / "files" / "store"
        self.root, self.url = services.folder / "photos", f"{services.git}/photos.git"
        (self.root / "data").mkdir(parents=True)
        self._git("init", "-q", "-b", "main")
        self._dvc("init", "-q")
        self._dvc("remote", "add", "-q", "-d", "store", f"{services.files}/store")
        # Readers take the photos over HTTP; this side writes into the same folder.
        self._dvc("remote", "add", "-q", "--local", "write", str(self._store))
        for name in subjects:
            self._dvc("get", "-q", str(ROOT), f"data/{name}", "-o", f"data/{name}")
        self.push()

    def push(self) -> None:
        """Track the photos as they are in `root` now, and push them."""
        self._dvc("add", "-q", "data")
        self._git("add", "--all")
        self._git("commit", "-q", "-m", "photos")
        self._dvc("push", "-q", "-r", "write")
        if not self._bare.exists():
            subprocess.run(["git", "clone", "-q", "--bare", str(self.root), str(self._bare)], check=True)
            self._git("--git-dir", str(self._bare), "config", "uploadpack.allowAnySHA1InWant", "true")
        self._git("push", "-q", str(self._bare), "main")

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *_IDENTITY, *arguments], cwd=self.root, check=True, capture_output=True)

    def _dvc(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=self.root, check=True, capture_output=True)
