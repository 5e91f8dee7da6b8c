"""The benchmark's targets for the default method, and whether the measured figures meet them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.quality import statistics
from benchmarks.quality.plan import CEILING, DEFAULT

BETTER = {"psnr_fg": 1, "mask_iou": 1, "janus_excess": -1}
NOT_WORSE = {"depth_error": -1, "clip_t": 1, "r_precision": 1}
"""Metrics of the comparison with `naive`, and whether more is better (1) or less (-1)."""


@dataclass(frozen=True)
class Target:
    """One target: what is wanted, what was measured, and whether that is enough."""

    wanted: str
    measured: str
    met: bool


def targets(table: pd.DataFrame, finished: Sequence[dict[str, Any]]) -> Iterator[Target]:
    """All targets whose methods have been run."""
    yield from _against_naive(table)
    for other in ("seed", "paper"):
        for metric in ("psnr_fg", "r_precision"):
            found = statistics.difference(table, DEFAULT, other, metric)
            if not math.isnan(found.mean):
                yield Target(f"{metric} above `{other}`", f"{found.mean:+.2f}", found.mean > 0)
    yield from _levels(table)
    collapsed = [run for run in finished if run["method"] == DEFAULT and run["metrics"]["mask_iou"] < 0.2]
    yield Target("no collapsed run of the default", f"{len(collapsed)}", not collapsed)


def _against_naive(table: pd.DataFrame) -> Iterator[Target]:
    for metric, sign in (BETTER | NOT_WORSE).items():
        found = statistics.difference(table, DEFAULT, "naive", metric)
        if math.isnan(found.mean):
            continue
        worst, best = (found.lo, found.hi) if sign > 0 else (-found.hi, -found.lo)
        strict = metric in BETTER
        wanted = f"{metric} {'better' if strict else 'not significantly worse'} than `naive`, 95 %"
        shown = f"{found.mean:+.3f} [{found.lo:+.3f}, {found.hi:+.3f}]"
        yield Target(wanted, shown, worst > 0 if strict else best >= 0)


def _levels(table: pd.DataFrame) -> Iterator[Target]:
    """What the default is to reach by itself."""

    def mean(metric: str, method: str = DEFAULT) -> float:
        return statistics.mean(table, method, metric).mean

    over_mean = statistics.difference(table, DEFAULT, "mean_image", "psnr_fg").mean
    below = -statistics.difference(table, DEFAULT, CEILING, "psnr_fg").mean
    aligned = -statistics.difference(table, DEFAULT, CEILING, "aligned/psnr_fg").mean
    precision, ideal = mean("r_precision"), mean("r_precision", "truth")
    yield Target("psnr_fg at least 3 dB above the mean image", f"{over_mean:+.2f}", over_mean >= 3)
    if not math.isnan(below):
        shown = f"{below:.2f} below ({aligned:.2f} aligned)"
        yield Target("psnr_fg within 4 dB of the ceiling", shown, below <= 4)
    yield Target("mask IoU at least 0.85", f"{mean('mask_iou'):.3f}", mean("mask_iou") >= 0.85)
    shown = f"{precision:.3f} (true renders: {ideal:.3f})"
    yield Target("R-precision at least 0.9", shown, precision >= 0.9)
    janus, recall = mean("janus_excess"), mean("front_recall")
    shown = f"{janus:.3f}, recall {recall:.3f}"
    yield Target("Janus excess at most 0.05 with front recall at least 0.9", shown, janus <= 0.05 and recall >= 0.9)
