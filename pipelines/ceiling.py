"""The ceiling of the benchmark: the same field fitted to true views of a toybox subject from all sides."""

from __future__ import annotations

from typing import Literal

import steps
from dreambooth3d import recipe
from dreambooth3d.config.distillation import FitTrueViewsConfig
from dreambooth3d.config.models import ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.results import EvaluateConfig, ExportConfig
from dreambooth3d.config.training import CeilingConfig
from operations.launch.strict import strict_pipeline
from steps._as_stages import stages_as_steps


@strict_pipeline(experiment="dreambooth3d-ceiling", config=CeilingConfig)
def multiview_truth(
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    photos: PhotosConfig = PhotosConfig(),
    scorers: ScorersConfig = ScorersConfig(),
    fit_true_views: FitTrueViewsConfig = FitTrueViewsConfig(),
    evaluate: EvaluateConfig = EvaluateConfig(),
    export_asset: ExportConfig = ExportConfig(),
) -> None:
    """Fit a field to the truth that all other pipelines only see in evaluation, and measure, export and publish it."""
    config = CeilingConfig(**locals())
    made = recipe.fit_truth(config, stages_as_steps(device))
    steps.publish(made.report, made.bundle, made.asset, made.photos, config, {})
