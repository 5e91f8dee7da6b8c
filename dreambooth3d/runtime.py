"""What every library loop gets from its caller: a log, a device, a place for resumable state, a stop signal."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth3d.errors import gist
from dreambooth3d.faults import gone_if_failed, in_one_sentence
from dreambooth3d.record import StepLog

logger = logging.getLogger(__name__)
WORK_ROOT_VARIABLE = "DREAMBOOTH3D_WORK"
SAVING_SHARE = 20
ALLOCATOR_SETTINGS = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}


def work_root() -> Path:
    """The folder for resumable states and checkpoints in the making."""
    return Path(os.environ.get(WORK_ROOT_VARIABLE, ".dreambooth3d/work"))


def work_folder(step: str, *inputs: object) -> Path:
    """The folder of one step's resumable state, keyed by everything that the step's result depends on."""
    text = json.dumps([str(value) for value in inputs], sort_keys=True)
    return work_root() / f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA where available, else the CPU.

    PyTorch is told to let pieces of the GPU's memory grow, unless the caller has told it otherwise: a training whose
    tensors are of another size at each step otherwise ends up holding several times of what it needs.
    """
    if not ALLOCATOR_SETTINGS & os.environ.keys():
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _flatten(state: Mapping[str, Any], prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Split a nested state: tensors go to `tensors` under their path, the rest stays as JSON."""
    plain: dict[str, Any] = {}
    for key, value in state.items():
        path = f"{prefix}{key}"
        if isinstance(value, Tensor):
            # A clone, since safetensors refuses tensors that share memory.
            tensors[path] = value.detach().cpu().clone().contiguous()
            plain[key] = {"__tensor__": path}
        elif isinstance(value, Mapping):
            plain[key] = _flatten(value, f"{path}/", tensors)
        else:
            plain[key] = value
    return plain


def _unflatten(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `_flatten`."""
    if isinstance(plain, dict):
        if set(plain) == {"__tensor__"}:
            return tensors[plain["__tensor__"]]
        return {key: _unflatten(value, tensors) for key, value in plain.items()}
    return plain


def _digest(tensors: Mapping[str, Tensor], plain: str) -> str:
    """SHA-256 of a state's tensors and of the rest of it."""
    digest = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _nothing() -> None:
    """What follows a save where nobody wants to know."""


class ResumePoint:
    """A resumable state in a folder, written atomically at an interval.

    The state is a nested dict with string keys whose leaves are tensors or JSON values. A state that takes long to
    write, as that of a large model does, is written less often, so that it costs a twentieth of the time at most.

    Args:
        folder: of the state.
        interval_s: seconds between two states at least.
        on_saved: called after each save.
    """

    def __init__(self, folder: Path, interval_s: float = 30.0, on_saved: Callable[[], None] = _nothing) -> None:
        self.folder = folder
        self.interval_s = interval_s
        self._on_saved = on_saved
        self._last = time.monotonic()
        self._took = 0.0

    def due(self) -> bool:
        """Whether the interval has passed since the last save, and twenty times what that took; always if it is 0."""
        wait = max(self.interval_s, SAVING_SHARE * self._took) if self.interval_s > 0 else 0.0
        return time.monotonic() - self._last >= wait

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the stored state; a kill at any moment, or an error, leaves the old or the new one.

        Raises:
            DiskError: the disk is full or cannot be written.
        """
        started = time.monotonic()
        tensors: dict[str, Tensor] = {}
        plain = _flatten(state, "", tensors)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "state.partial"
        metadata = {"state": json.dumps(plain)}
        with in_one_sentence("", partial), gone_if_failed(partial):
            save_file(tensors, partial, metadata={**metadata, "sha256": _digest(tensors, metadata["state"])})
            with open(partial, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, self.folder / "state.safetensors")
        self._last = time.monotonic()
        self._took = self._last - started
        self._on_saved()

    def load(self) -> dict[str, Any] | None:
        """The stored state with tensors on the CPU, or None; a damaged one is set aside, which the log says."""
        path = self.folder / "state.safetensors"
        try:
            return self._verified(path)
        except FileNotFoundError:
            return None
        except (OSError, MemoryError):  # says nothing about the state
            raise
        # A header that is cut short, JSON or tensors that do not fit it: each reader raises errors of its own.
        except Exception as error:
            aside = path.with_suffix(".damaged")
            with suppress(FileNotFoundError):  # another process of the stage has done it
                os.replace(path, aside)
            logger.warning(
                "%s: this resumable state is damaged (%s), and set aside as %s. The stage starts from its beginning.",
                path, gist(error), aside.name,
            )  # fmt: skip
            return None

    @staticmethod
    def _verified(path: Path) -> dict[str, Any]:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata()
        tensors = load_file(path)
        if _digest(tensors, metadata["state"]) != metadata["sha256"]:
            raise ValueError("another SHA-256")
        return _unflatten(json.loads(metadata["state"]), tensors)

    def clear(self) -> None:
        """Forget the state; called on success."""
        shutil.rmtree(self.folder, ignore_errors=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's per-parameter state with string keys, ready for a `ResumePoint`."""
    return {str(key): dict(value) for key, value in optimizer.state_dict()["state"].items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Inverse of `optimizer_state` for an optimizer over the same parameters."""
    full = optimizer.state_dict()
    full["state"] = {int(key): dict(value) for key, value in state.items()}
    optimizer.load_state_dict(full)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # Stored row by row; a fused optimizer takes parameter and moments as they lie in memory.
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def never_stop() -> bool:
    """The default stop signal."""
    return False


@dataclass
class Runtime:
    """One step's surroundings.

    Attributes:
        log: where the step reports.
        folder: the step's own work folder (see `work_folder`), for its resumable state and large files in the making.
        device: where tensors live.
        should_stop: true once the user asked to finish the current stage early.
        progress: show progress bars.
        origin: facts about what runs it, such as run and commit, for files that name their origin.
        on_saved: called whenever a resumable state was saved, to keep it in another place as well.
    """

    log: StepLog
    folder: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    should_stop: Callable[[], bool] = never_stop
    progress: bool = True
    origin: Mapping[str, str] = field(default_factory=dict)
    on_saved: Callable[[], None] = _nothing

    def resume_point(self, name: str = "state", interval_s: float = 30.0) -> ResumePoint:
        """A resumable state inside the work folder."""
        return ResumePoint(self.folder / name, interval_s, self.on_saved)
