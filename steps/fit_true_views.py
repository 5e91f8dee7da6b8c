"""Step: the ceiling, a radiance field fitted to true views."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import GroundTruth, RadianceField
from dreambooth3d.config.distillation import FitTrueViewsConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.fit_true_views))
def fit_true_views(
    truth: GroundTruth, config: FitTrueViewsConfig, seed: int, device: str
) -> Annotated[RadianceField, "asset_field"]:
    """Fit a fresh field to true views: what reconstruction alone could reach. Only the ceiling's pipeline does this."""
    return run_stage(stages.fit_true_views, device, truth, config, seed)
