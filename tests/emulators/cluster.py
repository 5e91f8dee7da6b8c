"""A whole remote world on loopback: ZenML server, S3, Kubernetes with a CPU node and a GPU node."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE, CONTEXT, BUCKET, IMAGE = "zenml", "emulated", "dreambooth3d", "registry.example.com/dreambooth3d:gpu"
_TOKEN, _PASSWORD = "admin-of-the-emulator", "password-of-the-emulator"


def missing() -> str | None:
    """What stops the emulation here; None if nothing does."""
    if os.geteuid() != 0:
        return "needs root, for the namespaces of the pods"
    if shutil.which("unshare") is None or shutil.which("openssl") is None:
        return "needs unshare and openssl"
    probe = subprocess.run(["unshare", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True)
    return None if probe.returncode == 0 else "needs the right to make namespaces"


@dataclass(frozen=True)
class Cluster:
    """Where everything is.

    Attributes:
        folder: of all state.
        api: the URL of the Kubernetes API.
        s3: the URL of the S3 server.
        zenml: the URL of the ZenML server.
        zenml_key: an API key of it.
    """

    folder: Path
    api: str
    s3: str
    zenml: str
    zenml_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client reaches the servers."""
        return {
            "KUBECONFIG": str(self.folder / "kubeconfig"), "ZENML_STORE_URL": self.zenml,
            "ZENML_STORE_API_KEY": self.zenml_key,
        }  # fmt: skip

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask the Kubernetes API as its administrator."""
        context = ssl.create_default_context(cafile=self.folder / "certificate.pem")
        return _request(method, self.api + path, body, _TOKEN, context)

    def items(self, resource: str) -> list[dict[str, Any]]:
        """The pods, jobs or cronjobs of the namespace."""
        group = "api" if resource in ("pods", "secrets") else "apis/batch"
        return self.call("GET", f"/{group}/v1/namespaces/{NAMESPACE}/{resource}")["items"]


@contextmanager
def emulated_cluster(folder: Path) -> Iterator[Cluster]:
    """Start all servers, wait until they answer, and kill them at the end."""
    (folder / "logs").mkdir(parents=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    _run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
    )
    api_port, s3_port, zenml_port = _free_ports(3)
    api, s3, zenml = f"https://127.0.0.1:{api_port}", f"http://127.0.0.1:{s3_port}", f"http://127.0.0.1:{zenml_port}"
    shared = ("--token", _TOKEN, "--logs", str(folder / "logs"), "--certificate", str(certificate))
    with ExitStack() as servers:

        def start(name: str, *arguments: str, **variables: str) -> None:
            servers.enter_context(_server(folder / f"{name}.log", arguments, variables))

        start("kubernetes", "-m", "tests.emulators.kube_api", "--port", str(api_port), "--key", str(key), *shared)
        start("s3", "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(s3_port))
        start(
            "zenml",
            *("-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1", "--port", str(zenml_port)),
            ZENML_CONFIG_PATH=str(folder / "zenml_server"), ZENML_SERVER="true", ZENML_SERVER_AUTO_ACTIVATE="true",
            ZENML_DEFAULT_USER_NAME="default", ZENML_DEFAULT_USER_PASSWORD=_PASSWORD,
            ZENML_SERVER_DEPLOYMENT_TYPE="other", ZENML_ANALYTICS_OPT_IN="false",
        )  # fmt: skip
        _write_kubeconfig(folder, api)
        cluster = Cluster(folder, api, s3, zenml, "")
        namespace = {"metadata": {"name": NAMESPACE}}
        _until(lambda: cluster.call("POST", "/api/v1/namespaces", namespace), "the Kubernetes API")
        images = json.dumps({IMAGE: f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
        for name, gpus in (("cpu-0", "0"), ("gpu-0", "1")):
            own = ("--server", api, "--name", name, "--gpus", gpus, "--images", images, "--root", str(folder / name))
            start(name, "-m", "tests.emulators.kubelet", *own, *shared)
        _until(lambda: _make_bucket(s3), "the S3 server")
        api_key = _until(lambda: _make_api_key(zenml), "the ZenML server")
        yield Cluster(folder, api, s3, zenml, api_key)


@contextmanager
def _server(log: Path, arguments: tuple[str, ...], variables: dict[str, str]) -> Iterator[None]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML_", "MLFLOW_"))}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=inherited | variables, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def _until(attempt: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """What an attempt returns as soon as it succeeds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(f"{what} does not answer: {error}") from error
            time.sleep(0.5)


def _request(
    method: str, url: str, body: object = None, token: str = "", context: ssl.SSLContext | None = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes) else None
    if body is not None and data is None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), context=context) as answer:
        return json.load(answer)


def _make_bucket(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
        pass


def _make_api_key(url: str) -> str:
    login = urllib.parse.urlencode({"username": "default", "password": _PASSWORD}).encode()
    token = _request("POST", f"{url}/api/v1/login", login)["access_token"]
    account = _request("POST", f"{url}/api/v1/service_accounts", {"name": "ci", "active": True}, token)
    made = _request("POST", f"{url}/api/v1/service_accounts/{account['id']}/api_keys", {"name": "key"}, token)
    return made["body"]["key"]


def _write_kubeconfig(folder: Path, api: str) -> None:
    cluster = {"server": api, "certificate-authority": str(folder / "certificate.pem")}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": "admin", "namespace": NAMESPACE}}],
        "clusters": [{"name": CONTEXT, "cluster": cluster}], "users": [{"name": "admin", "user": {"token": _TOKEN}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(content))
