"""Step: one complete MLflow row per pipeline run, a ZenML model version, an MLflow registered model. Never cached."""

from __future__ import annotations

from typing import Annotated

from zenml import get_step_context, step

import materializers  # noqa: F401  (registers them)
from dreambooth3d.artifacts import AssetBundle, EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from operations.registry.publication import Published, publish_run


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

    The model version keeps `identity`, what the training was made of, for later retrainings to compare with. A tracker
    that stays away does not undo the training: the index says what is left to complete.
    """
    made = Published(report, bundle, asset, photos, config, identity)
    return publish_run(get_step_context().pipeline_run, made)
