"""Step: score the asset with the judge, and against ground truth where it is known."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation import report
from dreambooth3d.evaluation.clip import ClipScorer, pinned
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("evaluation", "nerf", "toybox"))
def evaluate(
    asset: RadianceField,
    coarse: RadianceField,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: str,
    judge_digest: str,
    config: EvaluateConfig,
    device: str,
) -> Annotated[EvaluationReport, "report"]:
    """Score refined and coarse asset; the judge steers nothing, so no other step may load it."""
    inputs = (asset, coarse, photos, truth, judge_digest, config)
    with step_session("evaluate", device, *inputs) as session:
        session.runtime.log.params(judge=judge_digest)
        scorer = ClipScorer.load(pinned(judge, judge_digest), session.runtime.device)
        return session.finish(report.evaluate(asset, coarse, photos, truth, scorer, config, session.runtime))
