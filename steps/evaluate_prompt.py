"""Step: score an asset that was made from a prompt alone."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.generation import EvaluatePromptConfig
from dreambooth3d.config.models import ScorerRef
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.evaluate_prompt))
def evaluate_prompt(
    asset: RadianceField, photos: SubjectPhotos, judge: ScorerRef, config: EvaluatePromptConfig, device: str
) -> Annotated[EvaluationReport, "report"]:
    """Score the asset by the prompt, beside true subjects that fit it where such are known."""
    return run_stage(stages.evaluate_prompt, device, asset, photos, judge, config)
