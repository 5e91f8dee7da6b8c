"""Is the automatic choice of the partial checkpoint as good as hindsight?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality.statistics import estimate

AUTOMATIC = "automatic"
METRIC = "psnr_fg"


def cross_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Each strategy's score by subject: what it chooses is chosen on one seed and scored on the other.

    Args:
        table: one row per run with method (`automatic` or `step_NNN`), subject, seed and psnr_fg.

    Returns:
        Subjects as rows; columns are automatic, hindsight and every fixed step, in dB, mean over both directions.
    """
    scores = table.pivot_table(index=["subject", "seed"], columns="method", values=METRIC)
    steps = [name for name in scores if str(name).startswith("step_")]
    rows = {}
    for subject, both in scores.groupby(level="subject"):
        both = both.droplevel("subject")
        if len(both) < 2 or both[steps].isna().any().any():
            continue
        first, second = both.iloc[0], both.iloc[1]
        hindsight = (second[first[steps].idxmax()] + first[second[steps].idxmax()]) / 2
        rows[subject] = {AUTOMATIC: both[AUTOMATIC].mean(), "hindsight": hindsight} | both[steps].mean().to_dict()
    return pd.DataFrame(rows).T


def hindsight_section(table: pd.DataFrame, finished: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Tables of the strategies' scores, and what the selection cost."""
    scores = cross_scores(table)
    if scores.empty:
        yield "No subject has been measured with both seeds yet."
        return
    lines = ["| strategy | psnr_fg (dB) | automatic minus it (dB) |", "|---|---|---|"]
    for name in scores:
        gap = estimate((scores[AUTOMATIC] - scores[name]).to_numpy())
        lines.append(f"| {name} | {scores[name].mean():.2f} | {gap.mean:+.2f} [{gap.lo:+.2f}, {gap.hi:+.2f}] |")
    yield "\n".join(lines)
    automatic = [run for run in finished if run["method"] == AUTOMATIC]
    chosen = ", ".join(f"{run['subject']} {run['notes']['partial_step']}" for run in automatic)
    share = np.mean([run["seconds"]["select_checkpoints"] / sum(run["seconds"].values()) for run in automatic])
    yield f"Chosen steps: {chosen}. The selection took {100 * share:.1f} % of these runs' time in the mean."
