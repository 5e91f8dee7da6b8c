"""An emulated cluster, and a checkout whose stack `gpu` is registered there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from dreambooth3d.environment import ACTIVE, HOME, SETTINGS
from operations.launch.presets import read_preset

ROOT = Path(__file__).resolve().parents[2]
TINY_PIPELINE = "pipelines.tiny.dreambooth3d"
CODE = ("dreambooth3d", "pipelines", "steps", "materializers", "configs")


@dataclass(frozen=True)
class Checkout:
    """A user's checkout with a stack on the emulated cluster.

    Attributes:
        root: its folder.
        cluster: what the stack is on.
    """

    root: Path
    cluster: Any

    @property
    def environment(self) -> dict[str, str]:
        """The variables of an activated shell that is connected to the ZenML server."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML_", "MLFLOW_"))}
        own = {name: value.format(root=self.root) for name, value in SETTINGS.items()}
        extra = {ACTIVE: str(self.root), HOME: str(self.root), "PYTHONPATH": str(self.root), "COLUMNS": "400"}
        return inherited | own | extra | self.cluster.environment | {"OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python with these arguments."""
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=self.root, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments to the end."""
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def zenml(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the real zenml command."""
        return self.run(*ZENML, *arguments)

    def start_pipeline(self, config: str) -> subprocess.Popen[str]:
        """Start the documented command."""
        return self.start(*ZENML, *_run_of(TINY_PIPELINE, config))

    def run_pipeline(self, config: str, pipeline: str = TINY_PIPELINE) -> subprocess.CompletedProcess[str]:
        """Run the documented command to the end."""
        return self.zenml(*_run_of(pipeline, config))

    def dreambooth3d(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the console script."""
        return self.run("-m", "dreambooth3d.cli", *arguments)

    def write_config(self, name: str, seed: int = 0, change: Callable[[dict[str, Any]], None] | None = None) -> str:
        """Write `configs/kubernetes.yaml` for the tiny pipeline and without its schedule, changed as asked for."""
        values = read_preset(ROOT / "configs" / "kubernetes.yaml").values
        del values["schedule"]
        values["parameters"] = {"seed": seed}
        values["steps"] = {"finetune_dreambooth": values["steps"]["finetune_dreambooth"]}
        kubernetes = values["settings"]["orchestrator.kubernetes"]
        kubernetes["job_monitoring_interval"] = 1
        if change is not None:
            change(values)
        (self.root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(values))
        return f"configs/{name}.yaml"

    def runs(self, **filters: str) -> list[dict[str, Any]]:
        """The newest pipeline runs as the ZenML server tells them, newest first."""
        query = {"sort_by": "desc:created", "size": "50", "hydrate": "true"} | filters
        return self.cluster.ask_zenml(f"runs?{urlencode(query)}")["items"]

    @property
    def stack_options(self) -> tuple[str, ...]:
        """What makes `dreambooth3d stack kubernetes` register the stack `gpu`."""
        return (
            *("--name", "gpu", "--namespace", "zenml", "--context", "emulated", "--secret", "s3_keys"),
            *("--artifact-store", "s3://dreambooth3d", "--registry", "registry.example.com"),
            *("--tracking-secret", "mlflow_login", "--tracking-uri", self.cluster.mlflow),
            *("--endpoint-url", self.cluster.s3),
        )


# The orchestrators' environment sees the product's packages, and has no script `zenml`.
ZENML = ("-c", "import sys; from zenml_cli import cli; sys.argv[0] = 'zenml'; sys.exit(cli())")


def _run_of(pipeline: str, config: str) -> tuple[str, ...]:
    return ("pipeline", "run", pipeline, "--config", config, "--stack", "gpu")


def until(found: Callable[[], Any], seconds: float = 240) -> Any:
    """What a look finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.5)
    return value


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout that is connected to the emulated cluster, its secrets made, its stack not yet registered."""
    for package in ("kubernetes", "kubernetes_validate", "moto", "s3fs", "aiohttp", "croniter", "flask_wtf"):
        pytest.importorskip(package, reason=f"needs {package}: run `make test-orchestrators`")
    from tests.emulators.cluster import emulated_cluster, missing
    from tests.emulators.servers import PASSWORD, USER

    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kubernetes")
    root = folder / "checkout"
    for name in CODE:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "tests" / "orchestrators" / "tiny_pipeline.py", root / "pipelines" / "tiny.py")
    with emulated_cluster(folder / "cluster") as cluster:
        made = Checkout(root, cluster)
        # The commands of docs/kubernetes.md; here those of kubectl.
        cluster.call("POST", "/api/v1/namespaces/zenml/serviceaccounts", {"metadata": {"name": "dreambooth3d"}})
        account = {"kind": "ServiceAccount", "name": "dreambooth3d", "namespace": "zenml"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
        binding = {"metadata": {"name": "dreambooth3d"}, "roleRef": role, "subjects": [account]}
        cluster.call("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/zenml/rolebindings", binding)
        for result in (
            made.zenml("init"),
            made.zenml("secret", "create", "s3_keys", "--aws_access_key_id=k", "--aws_secret_access_key=s"),
            made.zenml("secret", "create", "mlflow_login", f"--username={USER}", f"--password={PASSWORD}"),
            made.zenml("secret", "create", "photo_keys", "--AWS_ACCESS_KEY_ID=k", "--AWS_SECRET_ACCESS_KEY=s"),
        ):
            assert result.returncode == 0, result.stderr + result.stdout
        yield made


@pytest.fixture(scope="session")
def on_cluster(checkout: Checkout) -> Checkout:
    """The checkout with the stack `gpu`, registered by the product's own command, and active."""
    for result in (
        checkout.dreambooth3d("stack", "kubernetes", *checkout.stack_options), checkout.zenml("stack", "set", "gpu"),
    ):  # fmt: skip
        assert result.returncode == 0, result.stderr
    return checkout
