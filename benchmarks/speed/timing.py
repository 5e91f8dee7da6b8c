"""Milliseconds per step, on the device's own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

WARM_UP = 5


@dataclass(frozen=True)
class Timing:
    """Steps of one kind.

    Attributes:
        samples: milliseconds of each step.
        peak_gib: peak memory of the GPU that PyTorch held, None on a CPU.
        allocated_gib: peak memory of it that tensors lay in; without what CUDA graphs keep for their next run.
    """

    samples: list[float]
    peak_gib: float | None
    allocated_gib: float | None

    @property
    def median(self) -> float:
        """Median milliseconds."""
        return statistics.median(self.samples)

    def summary(self) -> dict[str, float | int | None]:
        """Median, 10th and 90th percentile, number of steps, peak."""
        ordered = sorted(self.samples)
        tenth = len(ordered) // 10
        return {
            "median": self.median,
            "mean": statistics.mean(self.samples),
            "p10": ordered[tenth],
            "p90": ordered[-1 - tenth],
            "steps": len(ordered),
            "peak_gib": self.peak_gib,
            "allocated_gib": self.allocated_gib,
        }

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        """Those samples, with the peaks since `reset_peaks`."""
        if not torch.cuda.is_available():
            return cls(samples, None, None)
        held, allocated = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
        return cls(samples, held / 2**30, allocated / 2**30)


def reset_peaks() -> None:
    """Begin to look for peaks of memory; what earlier work left in PyTorch's cache is given back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_steps(step: Callable[[], object], steps: int, device: torch.device, warm_up: int = WARM_UP) -> Timing:
    """Time `steps` calls after `warm_up` others.

    On CUDA each time is from the end of one step's kernels to the end of the next one's, so that work which the host
    prepares ahead counts as it does in training. Peak memory is what PyTorch holds of the GPU: what a CUDA graph keeps
    for its intermediate values counts, which nobody frees between its runs.
    """
    for _ in range(warm_up):
        step()
    watch = Stopwatch(device)
    reset_peaks()
    watch.begin()
    for _ in range(steps):
        step()
        watch.mark("step")
    return Timing.of(watch.spans("step"))


class Stopwatch:
    """Marks within a step, and the mean milliseconds between them over all steps."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._steps: list[list[tuple[str, object]]] = []

    def begin(self) -> None:
        """A step begins."""
        self._steps.append([])
        self.mark("")

    def mark(self, name: str) -> None:
        """What was done since the last mark is called `name`."""
        if self._cuda:
            moment: object = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self._steps[-1].append((name, moment))

    def spans(self, name: str) -> list[float]:
        """Milliseconds of each piece of work of that name."""
        return [spent for step in self._steps for known, spent in self._spans(step) if known == name]

    def means(self) -> dict[str, float]:
        """Mean milliseconds per step by name, in order of first appearance."""
        totals: dict[str, float] = {}
        for step in self._steps:
            for name, spent in self._spans(step):
                totals[name] = totals.get(name, 0.0) + spent
        return {name: total / len(self._steps) for name, total in totals.items()}

    def _spans(self, marks: list[tuple[str, object]]) -> Iterator[tuple[str, float]]:
        if self._cuda:
            torch.cuda.synchronize()
        for (_, start), (name, end) in pairwise(marks):
            yield name, start.elapsed_time(end) if self._cuda else 1e3 * (end - start)


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast: the ratio of the medians."""
    return statistics.median(slow) / statistics.median(fast)
