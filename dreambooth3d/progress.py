"""How far a loop is: a bar in a terminal, and a line per tenth where the output goes to a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

TENTHS = 10
SMOOTHING = 0.05
"""Weight of the newest steps in a bar's rate: low, so that the time left does not jump."""


class LoopProgress:
    """The progress of one loop; use it as a context.

    Args:
        total: steps of the whole loop.
        name: of the loop.
        done: steps that were done before, in an earlier process.
        unit: what a step is called.
        shown: False shows nothing.
        stream: where it is shown; default stderr.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        total: int,
        name: str,
        *,
        done: int = 0,
        unit: str = "step",
        shown: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.name, self.done, self.unit = total, name, done, unit
        self._stream, self._clock = stream or sys.stderr, clock
        terminal = self._stream.isatty()
        self._bar = tqdm(
            total=total, initial=done, desc=name, unit=unit, file=self._stream, smoothing=SMOOTHING,
            disable=not (shown and terminal),
        )  # fmt: skip
        self._lines = shown and not terminal
        self._next, self._note = self._tenth() + 1, ""
        # The first step compiles, and reads what later ones have at hand.
        self._first: tuple[int, float] | None = None
        self._aside_s = 0.0

    def __enter__(self) -> LoopProgress:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar."""
        self._bar.close()

    def update(self, steps: int = 1) -> None:
        """Count steps."""
        self.done += steps
        self._bar.update(steps)
        if self._first is None:
            self._first = self.done, self._now()
        if self._lines and self._tenth() >= self._next:
            self._next = self._tenth() + 1
            print(self._line(), file=self._stream, flush=True)

    def note(self, **values: str) -> None:
        """What is shown beside it from now on, such as the loss."""
        self._note = "".join(f", {name} {value}" for name, value in values.items())
        self._bar.set_postfix(values, refresh=False)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do what is no step, such as previews: its time tells nothing about the steps that are left."""
        start = self._clock()
        try:
            yield
        finally:
            took = self._clock() - start
            self._aside_s += took
            if not self._bar.disable:
                self._bar.start_t += took
                self._bar.last_print_t += took

    def seconds_left(self) -> float | None:
        """For the steps that are left, None before two have been timed."""
        if self._first is None or self.done == self._first[0]:
            return None
        steps, seconds = self.done - self._first[0], self._now() - self._first[1]
        return seconds / steps * (self.total - self.done)

    def _now(self) -> float:
        return self._clock() - self._aside_s

    def _tenth(self) -> int:
        return TENTHS * self.done // max(self.total, 1)

    def _line(self) -> str:
        left = self.seconds_left()
        time_left = f", {tqdm.format_interval(left)} left" if left is not None and self.done < self.total else ""
        share = 100 * self.done // max(self.total, 1)
        return f"{self.name}: {share} %, {self.unit} {self.done} of {self.total}{time_left}{self._note}"


@contextmanager
def no_bars_of_transformers() -> Iterator[None]:
    """Keep transformers from drawing a bar per load: a model is loaded many times in one run."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
