"""What of a run's metrics a clock has measured, so that no two runs have the same."""

from __future__ import annotations

from collections.abc import Mapping


def is_timed(name: str) -> bool:
    """Whether a metric is a time, or a figure of how a step ran."""
    return name.startswith("steps/") or name.endswith("ms_per_step")


def untimed(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that two equal runs have in common."""
    return {name: value for name, value in metrics.items() if not is_timed(name)}
