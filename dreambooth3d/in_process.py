"""Stages one after the other in this process; one with the same inputs runs once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from dreambooth3d.artifacts import CheckpointSet
from dreambooth3d.config.base import Section
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.sources import library_digest

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FinishedStage:
    """One finished stage.

    Attributes:
        name: under which it ran.
        value: its result.
        seconds: how long it took.
        peak_mib: GPU memory at its peak, 0 on a CPU.
    """

    name: str
    value: Any
    seconds: float
    peak_mib: float


@dataclass
class InProcess:
    """A `dreambooth3d.recipe.RunStage` that remembers what it has run.

    Attributes:
        folder: for resumable states, checkpoints and exported files, one folder per stage and set of inputs.
        device: where to compute.
        progress: show progress bars.
        used: the stages that were asked for, in order, whether they ran or were remembered.
    """

    folder: Path
    device: torch.device
    progress: bool = True
    used: list[FinishedStage] = field(default_factory=list)
    _finished: dict[str, FinishedStage] = field(default_factory=dict)
    _keys: dict[int, str] = field(default_factory=dict)

    def __call__(
        self,
        name: str,
        stage: Callable[Concatenate[Runtime, Inputs], Result],
        /,
        *inputs: Inputs.args,
        **options: Inputs.kwargs,
    ) -> Result:
        """The stage's result, computed unless its inputs are known already."""
        key = self._key(name, inputs, options)
        if key not in self._finished:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            started = time.monotonic()
            # By the key: a state that was broken off must not be taken for that of other inputs.
            runtime = Runtime(StepLog(name), self.folder / f"{name}-{key}", self.device, progress=self.progress)
            value = stage(runtime, *inputs, **options)
            seconds = time.monotonic() - started
            peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0
            self._finished[key] = FinishedStage(name, value, seconds, peak)
            self._remember(key, value)
        self.used.append(self._finished[key])
        return self._finished[key].value

    def _key(self, name: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> str:
        """What the result depends on, an artifact being known by what it was computed from."""
        named = {option: self._identity(value) for option, value in options.items()}
        text = json.dumps([library_digest(), name, [self._identity(value) for value in inputs], named], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _identity(self, value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, Section) else self._keys.get(id(value), value)

    def _remember(self, key: str, value: Any) -> None:
        """Note which artifacts the stage has made; a checkpoint that was chosen is the one that was trained."""
        parts = dict(enumerate(value)) if isinstance(value, tuple) else {}
        checkpoints = value.checkpoints if isinstance(value, CheckpointSet) else {}
        for part, made in {"": value, **parts, **checkpoints}.items():
            self._keys.setdefault(id(made), f"{key}/{part}")
