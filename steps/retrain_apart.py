"""Step: a whole retraining inside one step, for orchestrators without dynamic pipelines. Never cached."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import yaml
from zenml import step

from dreambooth3d.errors import DreamBooth3DError


@step(enable_cache=False)
def retrain_apart(
    subjects: list[dict[str, Any]], parameters: dict[str, Any], stack: str
) -> Annotated[dict[str, str], "outcome"]:
    """Run `pipelines.retraining.retrain` in a process of its own, on the version of the dataset that was resolved."""
    pinned = next((found["dataset"] for found in subjects if found["dataset"]), parameters["dataset"])
    names = [found["subject"] for found in subjects]
    with tempfile.TemporaryDirectory() as temporary:
        config = Path(temporary) / "retrain.yaml"
        config.write_text(yaml.safe_dump({"parameters": {**parameters, "dataset": pinned, "subjects": names}}))
        # As the script `zenml` does; the package has no __main__, and its module of the group has no commands.
        zenml = [sys.executable, "-c", "import sys; from zenml_cli import cli; sys.argv[0] = 'zenml'; sys.exit(cli())"]
        command = [*zenml, "pipeline", "run", "pipelines.retraining.retrain", "--config", str(config), "--stack", stack]
        # The stack of this step, which the orchestrator names in the environment, would win over --stack.
        environment = {name: value for name, value in os.environ.items() if name != "ZENML_ACTIVE_STACK_ID"}
        result = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(result.stderr)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise DreamBooth3DError(lines[-1].removeprefix("Error: "))
    return {"stack": stack, "status": "completed"}
