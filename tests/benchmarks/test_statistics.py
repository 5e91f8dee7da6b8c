"""Means, intervals and paired differences of the quality benchmark, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import statistics


def table(**scores: dict[str, list[float]]) -> pd.DataFrame:
    """Runs of methods: method -> subject -> one score per seed."""
    return pd.DataFrame(
        [
            {"method": method, "subject": subject, "seed": seed, "psnr": value}
            for method, subjects in scores.items()
            for subject, values in subjects.items()
            for seed, value in enumerate(values)
        ]
    )


def test_seeds_are_averaged_before_subjects() -> None:
    # Over runs the mean would be 13; over subjects it is 12.
    runs = table(ours={"a": [10.0, 10.0], "b": [16.0, 12.0, 14.0, 14.0]})
    assert statistics.mean(runs, "ours", "psnr").mean == pytest.approx(12.0)


def test_differences_are_taken_within_subjects_that_both_have() -> None:
    runs = table(ours={"a": [10.0], "b": [20.0], "c": [99.0]}, theirs={"a": [9.0], "b": [18.5]})
    found = statistics.difference(runs, "ours", "theirs", "psnr")
    assert found.mean == pytest.approx(1.25)
    # Both subjects gain, so every resample of them does.
    assert 1.0 <= found.lo < found.hi <= 1.5 and found.excludes_zero


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        found = statistics.estimate(generator.normal(3.0, 1.0, size=30))
        covered += found.lo <= 3.0 <= found.hi
    assert 86 <= covered <= 100


def test_interval_of_subjects_that_disagree_holds_zero() -> None:
    found = statistics.estimate(np.array([2.0, -2.0, 1.0, -1.5]))
    assert found.lo < 0 < found.hi and not found.excludes_zero


def test_one_subject_has_no_interval_and_none_no_mean() -> None:
    one, none = statistics.estimate(np.array([4.0])), statistics.estimate(np.array([]))
    assert one.mean == 4.0 and np.isnan(one.lo) and not one.excludes_zero
    assert np.isnan(none.mean)
    assert np.isnan(statistics.mean(table(ours={"a": [1.0]}), "ours", "ssim").mean)
