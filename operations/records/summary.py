"""The row of a run over many subjects: what was done about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
import pandas as pd
from mlflow.tracking import MlflowClient

from dreambooth3d.naming import parameter_name
from operations.records.status import TAG
from operations.records.tracking import active_run_id


def log_summary(run: str, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Log a table of the verdicts, their counts, and each subject's action and reason, to the active MLflow run.

    Args:
        run: name of the pipeline run.
        verdicts: one per subject.
    """
    table = pd.DataFrame([dict(verdict) for verdict in verdicts])
    mlflow.log_text(table.to_csv(index=False), "summary.csv")
    if "mlflow.loggedArtifacts" not in MlflowClient().get_run(active_run_id()).data.tags:  # or it would be appended
        mlflow.log_table(table, "summary.json")
    counts = Counter(str(verdict["action"]) for verdict in verdicts)
    mlflow.log_metrics({f"summarize/{action}": count for action, count in counts.items()})
    for verdict in verdicts:
        subject = parameter_name(verdict["subject"])
        mlflow.log_param(f"{subject}.action", verdict["action"])
        mlflow.log_param(f"{subject}.reason", str(verdict["reason"])[:6000])
    status = "failed" if counts["failed"] else "completed"
    mlflow.set_tags({"zenml.pipeline_run": run, "subjects": str(len(table)), TAG: status})
