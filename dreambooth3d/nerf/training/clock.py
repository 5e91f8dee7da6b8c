"""How long an attempt takes."""

from __future__ import annotations

import time


class Clock:
    """Time of one attempt, what was spent before an interruption included, and of its steps."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started = self._lap_started = time.monotonic()
        self._steps = 0

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        """Count a step."""
        self._steps += 1

    def lap(self) -> float:
        """Mean milliseconds per step since the last call."""
        now = time.monotonic()
        mean = 1e3 * (now - self._lap_started) / self._steps
        self._lap_started, self._steps = now, 0
        return mean

    def restore(self, seconds: float) -> None:
        """Add what was spent before an interruption."""
        self._before = seconds
