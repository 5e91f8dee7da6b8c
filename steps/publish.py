"""Step: one complete MLflow row per pipeline run, a ZenML model version, an MLflow registered model. Never cached."""

from __future__ import annotations

from typing import Annotated

from zenml import get_step_context, step
from zenml.types import HTMLString

import materializers  # noqa: F401  (registers them)
from dreambooth3d.artifacts import AssetBundle, EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from operations.registry.publication import Published, publish_run, report_on


@step(enable_cache=False, experiment_tracker=True)
def publish(
    report: EvaluationReport,
    bundle: AssetBundle,
    asset: RadianceField,
    photos: SubjectPhotos,
    config: TrainingConfig | CeilingConfig | TextTo3dConfig,
    identity: dict[str, str],
) -> tuple[Annotated[dict[str, str], "run_index"], Annotated[HTMLString, "run_report"]]:
    """Replay every step's record from its artifact, so that the row is complete also when steps were cached.

    The model version keeps `identity`, what the training was made of, for later retrainings to compare with. A tracker
    that stays away does not undo the training: the index says what is left to complete. The run's report is the second
    output, which ZenML shows.
    """
    made, run = Published(report, bundle, asset, photos, config, identity), get_step_context().pipeline_run
    page = report_on(run, made)
    return publish_run(run, made, page), HTMLString(page)
