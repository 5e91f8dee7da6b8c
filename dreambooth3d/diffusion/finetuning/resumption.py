"""The resumable state of a training: everything that a killed run needs to end as if it had not been killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.diffusion.finetuning.averaging import RunningAverage
from dreambooth3d.diffusion.finetuning.checkpoints import CheckpointKeeper
from dreambooth3d.diffusion.finetuning.networks import TrainedNetworks
from dreambooth3d.diffusion.finetuning.plan import CheckpointSchedule
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import SAVING_SHARE, ResumePoint, Runtime, optimizer_state, restore_optimizer

DISK_BYTES_PER_SECOND = 0.5e9
SHORTEST_INTERVAL_S = 30.0


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        done: steps that were run.
        grids: sample grids as uint8 (height, width, 3), by steps done.
        interrupted: whether the user's stop signal ended it.
    """

    done: int = 0
    grids: dict[int, Tensor] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True)
class ResumableParts:
    """What of a training has a state.

    Attributes:
        networks: with the trained weights.
        optimizer: over them.
        average: of them.
        scaler: of the loss in float16, None in other precisions.
        keeper: of the checkpoints.
        schedule: says which checkpoints and grids a resumed run finds again.
        log: with the time series.
    """

    networks: TrainedNetworks
    optimizer: torch.optim.Optimizer
    average: RunningAverage
    scaler: torch.amp.GradScaler | None
    keeper: CheckpointKeeper
    schedule: CheckpointSchedule
    log: StepLog


class Resumption:
    """Saves and restores the parts of a training in the runtime's work folder."""

    def __init__(self, parts: ResumableParts, runtime: Runtime) -> None:
        self._parts = parts
        self._point: ResumePoint = runtime.resume_point(interval_s=_saving_interval(parts.networks))

    def due(self) -> bool:
        """Whether the last save is long enough ago."""
        return self._point.due()

    def save(self, progress: Progress) -> None:
        """Replace the stored state."""
        self._point.save(self._state(progress))

    def clear(self) -> None:
        """Forget the stored state, after success."""
        self._point.clear()

    def restore(self) -> Progress:
        """Continue from a stored state whose checkpoints are still there, or start anew."""
        state, parts = self._point.load(), self._parts
        if state is None or not parts.keeper.restore(state["checkpoints"]):
            return Progress()
        parts.networks.restore(state)
        restore_optimizer(parts.optimizer, state["optimizer"])
        parts.average.restore(state["average"])
        if state["scaler"] and parts.scaler is not None:
            parts.scaler.load_state_dict(state["scaler"])
        parts.log.restore(state["log"])
        grids = {int(done): grid for done, grid in state["grids"].items()}
        for done, grid in grids.items():
            parts.log.image(f"samples/{parts.schedule.first_step + done:06d}", grid)
        return Progress(int(state["done"]), grids)

    def _state(self, progress: Progress) -> dict[str, Any]:
        parts = self._parts
        return {
            "done": progress.done,
            **parts.networks.state(),
            "optimizer": optimizer_state(parts.optimizer),
            "average": parts.average.state(),
            "scaler": dict(parts.scaler.state_dict()) if parts.scaler is not None else {},
            "log": parts.log.state(),
            "checkpoints": parts.keeper.state(),
            "grids": {str(done): grid for done, grid in progress.grids.items() if parts.schedule.is_due(done)},
        }


def _saving_interval(networks: TrainedNetworks) -> float:
    """Seconds between states, which hold weights and two moments: a twentieth of the time at most."""
    size = 3 * sum(parameter.numel() * 4 for parameter in networks.parameters)
    return max(SHORTEST_INTERVAL_S, SAVING_SHARE * size / DISK_BYTES_PER_SECOND)
