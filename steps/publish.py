"""Step: one complete MLflow row per pipeline run, a ZenML model version, an MLflow registered model. Never cached."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import get_step_context, step

import materializers  # noqa: F401  (registers them)
from dreambooth3d.artifacts import AssetBundle, EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from operations.records import publishing
from operations.records.tracking import active_run_id
from operations.registry.registration import register_asset


@step(enable_cache=False, experiment_tracker=True)
def publish(
    report: EvaluationReport,
    bundle: AssetBundle,
    asset: RadianceField,
    photos: SubjectPhotos,
    config: TrainingConfig | CeilingConfig | TextTo3dConfig,
    identity: dict[str, str],
) -> Annotated[dict[str, str], "run_index"]:
    """Replay every step's record from its artifact, so that the row is complete also when steps were cached.

    The row says that it is complete last of all, when nothing more can fail. The model version keeps `identity`, what
    the training was made of, for later retrainings to compare with.
    """
    run = get_step_context().pipeline_run
    stages = publishing.finished_stages(run.id)
    records = publishing.replay(stages)
    tags = publishing.tags(run, photos, records)
    publishing.log_config(config)
    if photos.images:
        publishing.log_dataset(photos)
    uri = publishing.bundle_uri(stages)
    publishing.log_files(report, bundle, uri)
    if isinstance(config, TrainingConfig):
        publishing.log_contexts(run, stages, config.contexts)
    publishing.set_tags(tags)
    version = register_asset(asset, uri, photos.subject, tags, identity)
    index = {
        "mlflow_run_id": active_run_id(),
        "pipeline_run": run.name,
        "subject": photos.subject,
        "bundle": uri,
        "model_version": version,
    }
    mlflow.log_dict(index, "run_index.json")
    publishing.set_end(tags)
    return index
