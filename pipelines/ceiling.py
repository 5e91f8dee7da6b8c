"""The ceiling of the benchmark: the same field fitted to true views of a toybox subject from all sides."""

from __future__ import annotations

from typing import Literal

import steps
from dreambooth3d.config.distillation import FitTrueViewsConfig
from dreambooth3d.config.models import ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.results import EvaluateConfig, ExportConfig
from dreambooth3d.config.training import CeilingConfig
from dreambooth3d.photos.dataset import dataset_hash
from operations.launch.identity import scorer_identity
from operations.launch.strict import strict_pipeline


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
    data = dataset_hash(photos)
    selector, selector_digest = scorers.selector, scorer_identity(scorers.selector)

    subject = steps.validate_photos(photos, data, selector, selector_digest)
    truth = steps.load_ground_truth(photos, data)
    asset = steps.fit_true_views(truth, fit_true_views, seed, device)
    report = steps.evaluate(
        asset, asset, subject, truth, scorers.judge, scorer_identity(scorers.judge), evaluate, device
    )
    bundle = steps.export_asset(asset, report, subject, export_asset, device)
    steps.publish(report, bundle, asset, subject, config, {})
