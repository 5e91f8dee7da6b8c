"""The exponential moving average of the trained weights, which the checkpoints hold where one is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel


class RunningAverage:
    """Follows parameters by diffusers' `EMAModel`, or does nothing.

    Args:
        parameters: what is averaged.
        decay: per step, once warmed up; 0 keeps no average, and then no method changes anything.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._average: EMAModel | None = None
        if decay:
            from diffusers.training_utils import EMAModel

            self._average = EMAModel(parameters, decay=decay, foreach=True)

    def follow(self) -> None:
        """Move the average towards the parameters, after an optimiser step."""
        if self._average is not None:
            self._average.step(self._parameters)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Have the average in the parameters for a while."""
        if self._average is None:
            yield
            return
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        try:
            yield
        finally:
            self._average.restore(self._parameters)

    def take_over(self) -> None:
        """Leave the average in the parameters, at the end."""
        if self._average is not None:
            self._average.copy_to(self._parameters)

    def state(self) -> dict[str, Any]:
        """The average, and how many steps it has seen; empty where none is kept."""
        if self._average is None:
            return {}
        weights = {str(index): weight for index, weight in enumerate(self._average.shadow_params)}
        return {"steps": self._average.optimization_step, "weights": weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        if self._average is not None:
            self._average.optimization_step = int(state["steps"])
            for index, weight in enumerate(self._average.shadow_params):
                weight.copy_(state["weights"][str(index)])
