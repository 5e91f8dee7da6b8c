"""Means over subjects with 95 % intervals, and paired differences: the bootstrap draws subjects, not views or runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A mean over subjects and its interval; `lo` and `hi` are NaN with fewer than two subjects."""

    mean: float
    lo: float
    hi: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.lo > 0 or self.hi < 0


def estimate(values: np.ndarray) -> Estimate:
    """Mean of one value per subject (n,), with the percentile bootstrap's interval; NaN without values."""
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    if len(values) == 1:
        return Estimate(float(values[0]), np.nan, np.nan)
    result = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", random_state=0
    )
    interval = result.confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))


def subject_means(table: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """One value per subject: the mean over the seeds of a method's runs; subjects without the metric are left out.

    Args:
        table: one row per run with columns method, subject, seed and the metrics.
    """
    if metric not in table:
        return pd.Series(dtype=float)
    return table[table["method"] == method].groupby("subject")[metric].mean().dropna()


def mean(table: pd.DataFrame, method: str, metric: str) -> Estimate:
    """A method's mean over subjects."""
    return estimate(subject_means(table, method, metric).to_numpy())


def difference(table: pd.DataFrame, method: str, other: str, metric: str) -> Estimate:
    """The mean over subjects of `method` minus `other`, subject by subject, over those that both ran on."""
    ours, theirs = (subject_means(table, name, metric) for name in (method, other))
    return estimate((ours - theirs).dropna().to_numpy())
