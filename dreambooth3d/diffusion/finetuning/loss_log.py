"""The losses of a running training as time series: kept on the device, fetched every few steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.record import StepLog

LOG_EVERY = 5


class LossLog:
    """Collects the losses of single steps, and writes their means.

    Args:
        log: where the step reports.
        first_step: step number to count from.
    """

    def __init__(self, log: StepLog, first_step: int) -> None:
        self._log, self._first_step = log, first_step
        self._pending: list[Mapping[str, Tensor]] = []

    @property
    def is_empty(self) -> bool:
        """Whether all losses are written."""
        return not self._pending

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of one step, scalars that stay on the device."""
        self._pending.append(losses)

    def write(self, done: int, learning_rate: float) -> float:
        """Write the means of the steps since the last point, as a point after `done` steps; returns the loss.

        Raises:
            DreamBooth3DError: the loss is no longer finite.
        """
        means = {name: float(torch.stack([entry[name] for entry in self._pending]).mean()) for name in self._pending[0]}
        self._pending.clear()
        if not math.isfinite(means["loss"]):
            raise no_longer_finite("the loss was", self._log.name, done)
        self._log.scalars(self._first_step + done, **means, learning_rate=learning_rate)
        return means["loss"]


def no_longer_finite(what: str, stage: str, step: int) -> DreamBooth3DError:
    """The end of a training that has left the numbers; `what` such as "the loss was"."""
    return DreamBooth3DError(
        f"{stage}: {what} no longer finite at step {step}. Lower {stage}.learning_rate, or set mixed_precision to no."
    )
