"""Step: what was done about each subject, as a table and as one MLflow row. Never cached."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import mlflow
import pandas as pd
from zenml import get_step_context, step

from dreambooth3d.naming import parameter_name
from operations.records.status import TAG


@step(enable_cache=False, experiment_tracker=True)
def summarize(verdicts: list[dict[str, Any]]) -> Annotated[pd.DataFrame, "summary"]:
    """One row per subject: action, reason, photo hash, child run, version."""
    table = pd.DataFrame(verdicts)
    mlflow.log_text(table.to_csv(index=False), "summary.csv")
    mlflow.log_table(table, "summary.json")
    counts = Counter(table["action"])
    mlflow.log_metrics({f"summarize/{action}": count for action, count in counts.items()})
    for verdict in verdicts:
        subject = parameter_name(verdict["subject"])
        mlflow.log_param(f"{subject}.action", verdict["action"])
        mlflow.log_param(f"{subject}.reason", str(verdict["reason"])[:6000])
    status = "failed" if counts["failed"] else "completed"
    name = get_step_context().pipeline_run.name
    mlflow.set_tags({"zenml.pipeline_run": name, "subjects": str(len(table)), TAG: status})
    return table
