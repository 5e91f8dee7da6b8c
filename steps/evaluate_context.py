"""Step: score a context's asset with the judge, and against the true edited subject where it is known."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation import contexts
from dreambooth3d.evaluation.clip import ClipScorer, pinned
from operations.launch.sources import library
from steps._support import step_name, step_session


@step(experiment_tracker=True, cache_policy=library("evaluation", "nerf", "toybox"))
def evaluate_context(
    asset: RadianceField,
    source: RadianceField,
    prompt: str,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: str,
    judge_digest: str,
    config: EvaluateConfig,
    device: str,
) -> Annotated[EvaluationReport, "context_report"]:
    """Score the edited asset beside the one that it was made from; as in `evaluate`, the judge steers nothing."""
    inputs = (asset, source, prompt, photos, truth, judge_digest, config)
    with step_session(step_name(), device, *inputs) as session:
        session.runtime.log.params(judge=judge_digest)
        scorer = ClipScorer.load(pinned(judge, judge_digest), session.runtime.device)
        report = contexts.evaluate_context(asset, source, prompt, photos, truth, scorer, config, session.runtime)
        return session.finish(report)
