"""What a step measured: parameters, metrics, time series and images, kept with its artifact.

Loops write into a `StepLog`; its frozen `StepRecord` travels with the artifact, so that a run's row in an experiment
tracker can be rebuilt from artifacts alone, also when every step came from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

    from dreambooth3d.live import Growth

SERIES_COLUMNS = ("step", "name", "value")
Scalar = str | int | float | bool


@dataclass(frozen=True)
class StepRecord:
    """Everything that one step reports.

    Attributes:
        name: the step's name, the prefix of all keys in the tracker.
        params: settings that were in force, flat.
        metrics: final figures.
        series: time series with columns step (int), name (str), value (float).
        images: uint8 images (height, width, 3) by name.
    """

    name: str
    params: Mapping[str, Scalar] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(SERIES_COLUMNS)))
    images: Mapping[str, Tensor] = field(default_factory=dict)


SeriesListener = Callable[[int, Mapping[str, float]], None]


class Watcher(Protocol):
    """Somebody who looks on while a step runs, and is no part of its record."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take a point of each named series."""
        ...

    def image(self, name: str, image: np.ndarray) -> None:
        """Take a picture, uint8 (height, width, 3)."""
        ...

    def growth(self, make: Callable[[], Growth]) -> None:
        """Take the asset as it is now."""
        ...


class StepLog:
    """Collects a step's record while it runs; listeners see every point of a series as it is written."""

    def __init__(self, name: str, listener: SeriesListener | None = None, watcher: Watcher | None = None) -> None:
        self.name = name
        self._listener, self._watcher = listener, watcher
        self._params: dict[str, Scalar] = {}
        self._metrics: dict[str, float] = {}
        self._rows: list[tuple[int, str, float]] = []
        self._images: dict[str, Tensor] = {}

    def params(self, **values: Scalar) -> None:
        """Record settings."""
        self._params.update(values)

    def metrics(self, **values: float) -> None:
        """Record final figures; names may hold slashes when passed as `**{"a/b": 1.0}`."""
        self._metrics.update({name: float(value) for name, value in values.items()})

    def scalars(self, step: int, **values: float) -> None:
        """Append one point to each named time series."""
        values = {name: float(value) for name, value in values.items()}
        self._rows.extend((step, name, value) for name, value in values.items())
        if self._listener is not None:
            self._listener(step, values)
        if self._watcher is not None:
            self._watcher.scalars(step, values)

    def image(self, name: str, image: Tensor) -> None:
        """Keep an image: float (3, height, width) in [0, 1], or uint8 (height, width, 3)."""
        if image.dtype != torch.uint8:
            image = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
        self._images[name] = image.contiguous()
        if self._watcher is not None:
            self._watcher.image(name, self._images[name].cpu().numpy())

    def growth(self, make: Callable[[], Growth]) -> None:
        """Show the asset as it is now to whoever watches; nothing is made where nobody does."""
        if self._watcher is not None:
            self._watcher.growth(make)

    def record(self) -> StepRecord:
        """The frozen record of all that was logged so far."""
        series = pd.DataFrame(self._rows, columns=list(SERIES_COLUMNS))
        return StepRecord(self.name, dict(self._params), dict(self._metrics), series, dict(self._images))

    def state(self) -> list[list[Any]]:
        """The series so far as JSON-ready rows, for a resumable state."""
        return [list(row) for row in self._rows]

    def restore(self, rows: list[list[Any]]) -> None:
        """Continue the series from `state()`; listeners are not called again."""
        self._rows = [(int(step), str(name), float(value)) for step, name, value in rows]
