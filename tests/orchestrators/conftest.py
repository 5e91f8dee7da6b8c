"""An emulated cluster, and a checkout whose stack `gpu` is registered there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreambooth3d.cli.environment import ACTIVE, HOME, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
CODE = ("dreambooth3d", "pipelines", "steps", "materializers", "configs")
PREPARE = """
from zenml.client import Client
Client.initialize()
Client().create_secret("s3_keys", {"aws_access_key_id": "k", "aws_secret_access_key": "s"})
Client().create_secret("mlflow_login", {"username": "u", "password": "p"})
"""
REPORT = """
import json, sys
from zenml.client import Client
runs = Client().list_pipeline_runs(sort_by="desc:created", size=50, hydrate=True).items
print("REPORT" + json.dumps([
    {"id": str(run.id), "name": run.name, "status": str(run.status), "scheduled": run.schedule is not None, "steps": {
        name: {"status": str(step.status), "output": {
            key: values[0].load() for key, values in step.outputs.items()} if step.status == "completed" else {}}
        for name, step in run.steps.items()}}
    for run in runs]))
"""


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
        return self.run(*_ZENML, *arguments)

    def start_pipeline(self, config: str) -> subprocess.Popen[str]:
        """Start the documented command."""
        return self.start(*_ZENML, *_RUN, config, "--stack", "gpu")

    def run_pipeline(self, config: str) -> subprocess.CompletedProcess[str]:
        """Run the documented command to the end."""
        return self.zenml(*_RUN, config, "--stack", "gpu")

    def dreambooth3d(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the console script."""
        return self.run("-m", "dreambooth3d.cli", *arguments)

    def write_config(self, name: str, seed: int = 0, change: Callable[[dict[str, Any]], None] | None = None) -> str:
        """Write `configs/kubernetes.yaml` for the tiny pipeline and without its schedule, changed as asked for."""
        values = yaml.safe_load((ROOT / "configs" / "kubernetes.yaml").read_text())
        del values["schedule"]
        values["parameters"] = {"seed": seed}
        values["steps"] = {"finetune_dreambooth": values["steps"]["finetune_dreambooth"]}
        kubernetes = values["settings"]["orchestrator.kubernetes"]
        kubernetes["job_monitoring_interval"] = 1
        if change is not None:
            change(values)
        (self.root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(values))
        return f"configs/{name}.yaml"

    def runs(self) -> list[dict[str, Any]]:
        """All pipeline runs as the ZenML server tells them, newest first, with the outputs of completed steps."""
        result = self.run("-c", REPORT)
        lines = [line for line in result.stdout.splitlines() if line.startswith("REPORT")]
        assert lines, result.stderr
        return json.loads(lines[-1].removeprefix("REPORT"))


_ZENML = ("-c", "import sys; from zenml_cli import cli; sys.argv[0] = 'zenml'; sys.exit(cli())")
_RUN = ("pipeline", "run", "pipelines.tiny.dreambooth3d", "--config")
STACK = (
    *("--name", "gpu", "--namespace", "zenml", "--context", "emulated", "--secret", "s3_keys"),
    *("--artifact-store", "s3://dreambooth3d", "--registry", "registry.example.com"),
    *("--tracking-uri", "http://127.0.0.1:9", "--tracking-secret", "mlflow_login"),
)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout that is connected to the emulated cluster, its secrets made, its stack not yet registered."""
    for package in ("kubernetes", "kubernetes_validate", "moto", "s3fs", "aiohttp", "croniter"):
        pytest.importorskip(package, reason=f"needs {package}: run `make test-orchestrators`")
    from tests.emulators.cluster import emulated_cluster, missing

    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kubernetes")
    root = folder / "checkout"
    for name in CODE:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "tests" / "orchestrators" / "tiny_pipeline.py", root / "pipelines" / "tiny.py")
    with emulated_cluster(folder / "cluster") as cluster:
        made = Checkout(root, cluster)
        result = made.run("-c", PREPARE)
        assert result.returncode == 0, result.stderr
        yield made


@pytest.fixture(scope="session")
def on_cluster(checkout: Checkout) -> Checkout:
    """The checkout with the stack `gpu`, registered by the product's own command."""
    result = checkout.dreambooth3d("stack", "kubernetes", *STACK, "--endpoint-url", checkout.cluster.s3)
    assert result.returncode == 0, result.stderr
    return checkout
