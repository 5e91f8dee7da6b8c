"""Commands as forks of one process that has imported the large libraries, for tests that start many of them.

A new interpreter spends two to eight seconds on PyTorch, diffusers, MLflow and ZenML before it comes to a command's own
code. Here one process per worker of pytest imports them, and leaves nothing of this project: a fork takes arguments,
folder, variables and standard streams that a new process would get, and then runs the command, which finds its own code
by `PYTHONPATH` as always.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

LIBRARIES = (
    "accelerate", "alembic.command", "diffusers.training_utils", "docker", "embreex.rtcore_scene",
    "fast_simplification", "fastapi", "imageio.v3", "jaxtyping", "mlflow.pyfunc", "nerfacc",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "omegaconf", "pandas",
    "peft", "pi_heif", "pyarrow", "rich.console", "rich.table", "scipy.cluster.hierarchy", "scipy.fft", "scipy.ndimage",
    "scipy.signal", "scipy.sparse.linalg", "scipy.spatial.transform", "skimage.color", "skimage.filters",
    "skimage.measure", "skimage.metrics", "sqlalchemy_utils", "sqlmodel", "torch", "torch.utils.data",
    "trimesh.creation", "typer", "xatlas", "zenml.client",
    "zenml.integrations.mlflow.experiment_trackers", "zenml.integrations.mlflow.model_registries",
    "zenml.orchestrators.local.local_orchestrator", "zenml.orchestrators.step_launcher", "zenml.pipelines",
    "zenml.zen_stores.sql_zen_store",
)  # fmt: skip
"""Not `zenml.cli`: with it ZenML sends to stderr what goes to stdout, as only its own command is to do."""
OWN = ("dreambooth3d", "materializers", "operations", "pipelines", "steps")
NAMES = {
    "diffusers": ("AutoencoderKL", "DDIMScheduler", "StableDiffusionPipeline", "UNet2DConditionModel"),
    "transformers": ("CLIPImageProcessor", "CLIPModel", "CLIPProcessor", "CLIPTextModel", "CLIPTokenizer"),
}
"""What these two libraries load when it is first asked for."""


class WarmProcess:
    """A process that has the libraries, and forks for each command."""

    def __init__(self, environment: Mapping[str, str], script: Path = Path(__file__)) -> None:
        """Start it, by this file or a stand-in, with the variables of an activated shell: libraries read some once."""
        self._command = [sys.executable, "-P", str(script.resolve())]
        self._environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        self._alone = threading.Lock()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(self._command, env=self._environment, **pipes)

    def run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """What Python says with these arguments, `-m MODULE ...` or `SCRIPT ...`.

        Where the process has died, a new one takes its place.

        Raises:
            RuntimeError: it dies before it answers; this command may have done its work, and is not given again.
        """
        with self._alone, tempfile.TemporaryDirectory() as place:
            out, err = Path(place) / "out", Path(place) / "err"
            request = {
                "arguments": list(arguments), "folder": str(folder), "environment": dict(environment),
                "out": str(out), "err": str(err),
            }  # fmt: skip
            if self.process.poll() is not None:
                self.process = self._start()
            stdin, stdout = self.process.stdin, self.process.stdout
            assert stdin is not None and stdout is not None
            answer = ""
            with suppress(BrokenPipeError):
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
                answer = stdout.readline()
            if not answer:
                self.process.kill()
                raise RuntimeError(f"The warm process has died ({self.process.wait()}) at {list(arguments)}.")
            return subprocess.CompletedProcess(list(arguments), json.loads(answer), out.read_text(), err.read_text())


def import_libraries() -> None:
    """Import them; none may leave a thread, of which a fork would know nothing."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for library, names in NAMES.items():
        for name in names:
            getattr(importlib.import_module(library), name)
    # ZenML has called our hook, which each fork calls of its own code.
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    assert Client._global_client is None and GlobalConfiguration._global_config is None, "no state of any folder yet"
    assert threading.active_count() == 1, threading.enumerate()


def answer_requests() -> dict[str, Any] | None:
    """Fork for each request and tell its exit code, until there are no more; in a fork return what it is to do."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            return request
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        replies.write(f"{code}\n")
        replies.flush()
    return None


def become(request: dict[str, Any]) -> None:
    """Run the command in this process, and end it as a new interpreter would end."""
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    random.seed()
    numpy.random.seed()
    first, *others = request["arguments"]
    found = request["environment"].get("PYTHONPATH", "")
    sys.path[:0] = [request["folder"] if first == "-m" else str(Path(first).parent), *filter(None, found.split(":"))]
    importlib.invalidate_caches()
    sys.modules.pop("sitecustomize", None)
    with suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")
    importlib.import_module("operations.zenml_start").prepare()
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    if first == "-m":
        sys.argv = [first, *others[1:]]
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    import_libraries()
    gc.freeze()
    asked = answer_requests()
    if asked is not None:
        become(asked)
