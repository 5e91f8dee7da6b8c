"""Step: score a context's asset with the judge, and against the true edited subject where it is known."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.config.results import EvaluateConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.evaluate_context))
def evaluate_context(
    asset: RadianceField,
    source: RadianceField,
    prompt: str,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: ScorerRef,
    config: EvaluateConfig,
    device: str,
) -> Annotated[EvaluationReport, "context_report"]:
    """Score the edited asset beside the one that it was made from; as in `evaluate`, the judge steers nothing."""
    return run_stage(stages.evaluate_context, device, asset, source, prompt, photos, truth, judge, config)
