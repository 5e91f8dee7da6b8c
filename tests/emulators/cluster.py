"""A whole remote world on loopback: ZenML server, MLflow server, S3, Kubernetes with a CPU node and a GPU node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tests.emulators import servers
from tests.emulators.servers import ask, bearer, free_port, running, when_up

NAMESPACE, CONTEXT, BUCKET, IMAGE = "zenml", "emulated", "dreambooth3d", "registry.example.com/dreambooth3d:gpu"
TOKEN = "admin-of-the-emulator"
"""With all rights on the Kubernetes API."""


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
        mlflow: the URL of the MLflow server, which asks for a login.
        zenml: the URL of the ZenML server.
        zenml_key: an API key of it.
    """

    folder: Path
    api: str
    s3: str
    mlflow: str
    zenml: str
    zenml_key: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client reaches the servers."""
        kubeconfig = str(self.folder / "kubeconfig")
        return {"KUBECONFIG": kubeconfig, "ZENML_STORE_URL": self.zenml, "ZENML_STORE_API_KEY": self.zenml_key}

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask the Kubernetes API as its administrator."""
        certificate = str(self.folder / "certificate.pem")
        return ask(method, self.api + path, json=body, headers=bearer(TOKEN), verify=certificate)

    def items(self, resource: str) -> list[dict[str, Any]]:
        """The pods, secrets, jobs or cronjobs of the namespace."""
        group = "api" if resource in ("pods", "secrets") else "apis/batch"
        return self.call("GET", f"/{group}/v1/namespaces/{NAMESPACE}/{resource}")["items"]

    def log(self, pod: dict[str, Any]) -> str:
        """What a pod has written."""
        return (self.folder / "logs" / f"{NAMESPACE}_{pod['metadata']['name']}.log").read_text()

    def ask_mlflow(self, path: str, body: object = None) -> dict[str, Any]:
        """Ask MLflow's REST API: GET, or POST where there is a body."""
        return servers.ask_mlflow(self.mlflow, path, body)

    def ask_zenml(self, path: str) -> Any:
        """Ask ZenML's REST API."""
        token = ask("POST", f"{self.zenml}/api/v1/login", data={"password": self.zenml_key})["access_token"]
        return ask("GET", f"{self.zenml}/api/v1/{path}", headers=bearer(token))


@contextmanager
def emulated_cluster(folder: Path) -> Iterator[Cluster]:
    """Start all servers, wait until they answer, and kill them at the end."""
    (folder / "logs").mkdir(parents=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    openssl += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(openssl, check=True, capture_output=True)
    shared = ("--token", TOKEN, "--logs", str(folder / "logs"), "--certificate", str(certificate))
    api_port = free_port()
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            stack.enter_context(running(folder / f"{name}.log", arguments, {}))

        start("api", "-m", "tests.emulators.kube_api", "--port", str(api_port), "--key", str(key), *shared)
        s3, wait_for_s3 = servers.start_s3(stack, folder, [BUCKET])
        mlflow, wait_for_mlflow = servers.start_mlflow(stack, folder, f"s3://{BUCKET}/mlflow", s3)
        zenml, wait_for_zenml = servers.start_zenml(stack, folder)
        cluster = Cluster(folder, f"https://127.0.0.1:{api_port}", s3, mlflow, zenml)
        _write_kubeconfig(cluster)
        namespace = {"metadata": {"name": NAMESPACE}}
        when_up(lambda: cluster.call("POST", "/api/v1/namespaces", namespace), "the Kubernetes API")
        images = json.dumps({IMAGE: f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
        for name, gpus in (("cpu-0", "0"), ("gpu-0", "2")):
            own = ("--server", cluster.api, "--name", name, "--gpus", gpus, "--images", images)
            start(name, "-m", "tests.emulators.kubelet", *own, "--root", str(folder / name), *shared)
        wait_for_s3()
        cluster = replace(cluster, zenml_key=wait_for_zenml())
        wait_for_mlflow()
        yield cluster


def _write_kubeconfig(cluster: Cluster) -> None:
    server = {"server": cluster.api, "certificate-authority": str(cluster.folder / "certificate.pem")}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": "admin", "namespace": NAMESPACE}}],
        "clusters": [{"name": CONTEXT, "cluster": server}], "users": [{"name": "admin", "user": {"token": TOKEN}}],
    }  # fmt: skip
    (cluster.folder / "kubeconfig").write_text(yaml.safe_dump(content))
