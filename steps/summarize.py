"""Step: what was done about each subject, as a table and as one MLflow row. Never cached."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
from zenml import get_step_context, step

from operations.registry.publication import summarize_run


@step(enable_cache=False, experiment_tracker=True)
def summarize(verdicts: list[dict[str, Any]]) -> Annotated[pd.DataFrame, "summary"]:
    """One row per subject: action, reason, photo hash, child run, version."""
    summarize_run(get_step_context().pipeline_run, verdicts)
    return pd.DataFrame(verdicts)
