"""A logged model in MLflow for each checkpoint that was scored, so that a search over all runs finds the best ones.

The weights stay in their artifact: a model's tags say by which command they become a folder that diffusers loads.
"""

from __future__ import annotations

import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from zenml.client import Client
from zenml.models import PipelineRunResponse

from dreambooth3d.artifacts import CheckpointChoice
from operations.records.keys import SCORES
from operations.records.row import Origin

TYPE = "dreambooth-checkpoint"
STEP = "select_checkpoints"
COLUMNS = ("harmonic_mean", "subject_similarity", "view_obedience")
BASELINE_STEP = 0


def log_checkpoints(run: PipelineRunResponse, row: str, origin: Origin) -> None:
    """Log the checkpoints that a run has scored; those that are there already stay.

    Args:
        run: whose results they are.
        row: id of its row.
        origin: of the run.
    """
    step = Client().get_pipeline_run(run.id).steps.get(STEP)
    if step is None or "choice" not in step.outputs:
        return
    choice: CheckpointChoice = step.outputs["choice"][0].load()
    client = MlflowClient()
    known = _known(client, row)
    for score in choice.scores.to_dict("records"):
        number = int(score["step"])
        if number == BASELINE_STEP or f"checkpoint_{number}" in known:
            continue
        chosen = [which for which in ("partial", "full") if score[which]]
        model = mlflow.create_external_model(
            name=f"checkpoint_{number}",
            source_run_id=row,
            model_type=TYPE,
            params={"step": str(number)},
            tags={
                **origin.tags(),
                "chosen": ", ".join(chosen) or "no",
                "export": f"dreambooth3d checkpoint export {origin.run} FOLDER --step {number}",
            },
        )
        now = model.creation_timestamp
        points = [
            Metric(f"{SCORES}/{name}", float(score[name]), now, number, model_id=model.model_id, run_id=row)
            for name in COLUMNS
        ]
        client.log_batch(row, metrics=points)


def _known(client: MlflowClient, row: str) -> set[str]:
    """Names of the models that a row has."""
    experiment = client.get_run(row).info.experiment_id
    return {str(model.name) for model in client.search_logged_models([experiment], f"source_run_id = '{row}'")}
