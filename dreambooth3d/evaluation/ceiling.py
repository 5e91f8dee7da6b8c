"""The ceiling: how good the same field becomes when it is fitted to true views from all sides."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dreambooth3d.artifacts import GroundTruth, PseudoViews, RadianceField
from dreambooth3d.cameras import Cameras, spread_cameras
from dreambooth3d.config.distillation import FitTrueViewsConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.runtime import Runtime

AZIMUTH_OFFSET_DEG = 5.0
"""Half the turntable's step, so that no fitted view is a scored one."""


class NoGuidance(Guidance):
    """Leaves everything to the reconstruction."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """No opinion. See `Guidance`."""
        return GuidanceLoss(0.0 * images.sum())


def fit_true_views(truth: GroundTruth, config: FitTrueViewsConfig, seed: int, runtime: Runtime) -> RadianceField:
    """Fit a fresh field to true views by reconstruction alone.

    Args:
        truth: known.
        config: field, steps, and how many views from which elevations.
        seed: of the field's initial values and of the pixels drawn.
        runtime: log and device.

    Raises:
        ConfigError: the truth is not known, or not the photos' azimuths although these are asked for.
    """
    if not truth.known:
        raise ConfigError(
            "fit_true_views: this subject has no known ground truth. Choose a toybox subject, or put a "
            "ground_truth.yaml beside its photos."
        )
    cameras = _cameras(truth, config)
    views = true_views(truth, cameras, config.view_size)
    background = torch.tensor(config.background)[:, None, None]
    images = views.images - (1 - views.masks[:, None]) * (1 - background)
    targets = PseudoViews(images.clamp(0, 1), images.clamp(0, 1), views.masks, cameras, strength=0.0)
    return distil(DistillInputs(NoGuidance(), pseudo_views=targets), config, seed, runtime)


def _cameras(truth: GroundTruth, config: FitTrueViewsConfig) -> Cameras:
    """From where the true views are taken."""
    if config.azimuths == "photos":
        if not truth.photo_azimuths_deg:
            raise ConfigError(
                "fit_true_views.azimuths: the ground truth does not say from where the photos were taken. Add "
                "photo_azimuths_deg to ground_truth.yaml, or set it to around."
            )
        azimuths = torch.tensor(truth.photo_azimuths_deg)
        return replace(spread_cameras(len(azimuths), config.elevations_deg), azimuth_deg=azimuths)
    cameras = spread_cameras(config.count, config.elevations_deg)
    return replace(cameras, azimuth_deg=cameras.azimuth_deg + AZIMUTH_OFFSET_DEG)
