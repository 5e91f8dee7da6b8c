"""Step: score the asset with the judge, and against ground truth where it is known."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.config.results import EvaluateConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.evaluate))
def evaluate(
    asset: RadianceField,
    coarse: RadianceField,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: ScorerRef,
    config: EvaluateConfig,
    device: str,
) -> Annotated[EvaluationReport, "report"]:
    """Score refined and coarse asset; the judge steers nothing, so no other step may load it."""
    return run_stage(stages.evaluate, device, asset, coarse, photos, truth, judge, config)
