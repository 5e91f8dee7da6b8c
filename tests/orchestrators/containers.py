"""A checkout on loopback services whose steps can run in containers of this machine, with tiny models in its code."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests import product
from tests.emulators.services import loopback_services
from tests.evaluation.stand_ins import write_tiny_clip
from tests.orchestrators.conftest import CODE, ROOT, Checkout
from tests.tiny_models import write_tiny_base_model

IMAGE = os.environ.get("DREAMBOOTH3D_IMAGE", "dreambooth3d:cpu")
# In a folder that travels with the code, which models/ does not.
MODELS = {
    "base_model": {"path": "tiny_models/base"},
    "scorers": {"selector": "tiny_models/selector", "judge": "tiny_models/judge"},
}
SHORTEST = product.SHORTEST | MODELS
SUBJECT = "corgi"
_PREPARE = """
from zenml.client import Client
Client.initialize()
Client().create_secret("s3_keys", {"aws_access_key_id": "k", "aws_secret_access_key": "s"})
"""

_ZENML = """
import json, sys
from zenml_cli import cli
for command in json.loads(sys.argv[1]):
    cli(command, standalone_mode=False)
"""


def require_docker() -> None:
    """Skip where the containers cannot run."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        pytest.skip("needs a Docker daemon")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode != 0:
        pytest.skip(f"needs the image {IMAGE} of docker/Dockerfile; DREAMBOOTH3D_IMAGE names another")


@contextmanager
def checkout_on_loopback(folder: Path) -> Iterator[Checkout]:
    """A checkout that is connected to a ZenML server, with store, tracker and registry, and yet without a stack."""
    for package in ("moto", "s3fs", "aiohttp"):
        pytest.importorskip(package, reason=f"needs {package}: run `make test-orchestrators`")
    root = folder / "checkout"
    for name in CODE:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    write_tiny_base_model(root / "tiny_models" / "base")
    write_tiny_clip(root / "tiny_models" / "selector", size=32)
    write_tiny_clip(root / "tiny_models" / "judge", size=24)
    with loopback_services(folder / "services") as services:
        made = Checkout(root, services)
        result = made.run("-c", _PREPARE)
        assert result.returncode == 0, result.stderr
        register(
            made,
            "artifact-store register store --flavor=s3 --path=s3://dreambooth3d --authentication_secret=s3_keys "
            f'--client_kwargs=\'{{"endpoint_url": "{services.s3}"}}\'',
            f"experiment-tracker register tracker --flavor=mlflow --tracking_uri={services.mlflow} "
            "--tracking_username=none --tracking_password=none",
            "model-registry register registry --flavor=mlflow",
            "container-registry register images --flavor=default --uri=registry.example.com",
            "image-builder register builder --flavor=local",
        )
        yield made


def register(checkout: Checkout, *commands: str) -> None:
    """Run zenml commands as the documentation gives them, all in one process, which is faster."""
    result = checkout.run("-c", _ZENML, json.dumps([shlex.split(command) for command in commands]))
    assert result.returncode == 0, result.stderr[-2000:]


def rows(checkout: Checkout, experiment: str) -> list:
    """The rows of an MLflow experiment, the oldest first."""
    tracker = MlflowClient(checkout.cluster.mlflow)
    found = tracker.get_experiment_by_name(experiment)
    return tracker.search_runs([found.experiment_id], order_by=["start_time ASC"]) if found else []
