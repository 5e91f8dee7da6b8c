"""Step: the ceiling, a radiance field fitted to true views."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import GroundTruth, RadianceField
from dreambooth3d.config.distillation import FitTrueViewsConfig
from dreambooth3d.evaluation.ceiling import fit_true_views as fit
from dreambooth3d.photos.dataset import require_ground_truth
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("nerf", "evaluation", "toybox"))
def fit_true_views(
    truth: GroundTruth, config: FitTrueViewsConfig, seed: int, device: str
) -> Annotated[RadianceField, "asset_field"]:
    """Fit a fresh field to true views: what reconstruction alone could reach. Only the ceiling's pipeline does this."""
    require_ground_truth(truth)
    with step_session("fit_true_views", device, truth, config, seed) as session:
        return session.finish(fit(truth, config, seed, session.runtime))
