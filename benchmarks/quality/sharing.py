"""Several processes on one GPU at the same time, by NVIDIA's multi-process service where it is installed.

Without it the GPU switches from process to process, and small kernels of different processes never run side by side.
The service changes no setting of the card, and ends with the benchmark.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

CONTROL = "nvidia-cuda-mps-control"
PROBE = "import torch; torch.ones(1, device='cuda').item()"
PROBE_TIMEOUT_S = 60.0


@contextmanager
def shared_gpu(wanted: bool) -> Iterator[bool]:
    """Let processes that start inside share the GPU; yields whether they do. To be entered before CUDA is used."""
    if not wanted or shutil.which(CONTROL) is None or "CUDA_MPS_PIPE_DIRECTORY" in os.environ:
        yield "CUDA_MPS_PIPE_DIRECTORY" in os.environ
        return
    with tempfile.TemporaryDirectory() as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(variables)
        try:
            yield _start() and _works()
        finally:
            _quit()
            for name in variables:
                os.environ.pop(name, None)


def _start() -> bool:
    return subprocess.run([CONTROL, "-d"], capture_output=True).returncode == 0


def _works() -> bool:
    """Whether a process can use the GPU through the service; if not, it is ended, and the GPU used without it."""
    try:
        works = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        works = None
    if works is not None and works.returncode == 0:
        return True
    _quit()
    del os.environ["CUDA_MPS_PIPE_DIRECTORY"]
    return False


def _quit() -> None:
    if "CUDA_MPS_PIPE_DIRECTORY" in os.environ:
        subprocess.run([CONTROL], input="quit\n", text=True, capture_output=True, timeout=30.0)
