"""What guidance judges in each step: views from random cameras, before random backgrounds, under random light."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, random_cameras, shaken
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.view_loss import ViewBatch
from dreambooth3d.representation.shading import Shading, draw_shading, lit

RAMP_SHARE = 0.2
WHOLE_CIRCLE_DEG = (-180.0, 180.0)


class ViewDraws:
    """Draws each step's views, on the CPU.

    Args:
        inputs: pseudo views, from where guidance may be asked to look; whether the field is fresh.
        config: how many views, from where, in which light.
        generator: source of randomness, on the CPU.
    """

    def __init__(self, inputs: DistillInputs, config: DistillConfig, generator: torch.Generator) -> None:
        self.config, self.generator, self.fresh = config, generator, inputs.fresh
        at_pseudo_views = config.reconstruction is not None and config.reconstruction.camera_poses == "pseudo_views"
        self.poses = inputs.pseudo_views.cameras if at_pseudo_views and inputs.pseudo_views is not None else None

    def __call__(self, progress: float) -> ViewBatch:
        """The views of the step at a position in [0, 1].

        Sparsity and opacity ramp up on a fresh field, lest they kill the blob before guidance has shaped it.
        """
        cameras = self._shaken(self._cameras(progress))
        background = self._random_background()
        shading = self._shading(progress, cameras)
        ramp = min(1.0, progress / RAMP_SHARE) if self.fresh else 1.0
        return ViewBatch(cameras, background, shading, progress, ramp)

    def _shading(self, progress: float, cameras: Cameras) -> Shading:
        """How the cameras' views are lit."""
        config = self.config
        if config.guide_on == "textureless":
            return lit("textureless", config.shading, cameras, self.generator)
        return draw_shading(config.shading, progress, cameras, self.generator)

    def _cameras(self, progress: float) -> Cameras:
        """From where the renders are judged of the step at a position in [0, 1]."""
        count = self.config.views_per_step
        if self.poses is not None:
            return self.poses[torch.randperm(len(self.poses), generator=self.generator)[:count]]
        return random_cameras(count, self.generator, **self._ranges(progress))

    def _ranges(self, progress: float) -> dict[str, Any]:
        """The ranges of random cameras by name: they widen evenly from those of the start to the whole ones."""
        whole, start = self.config.cameras.model_dump(), self.config.progressive
        if progress >= start.views_until:
            return whole
        share = progress / start.views_until
        first = {"azimuth_deg": start.azimuth_deg, "elevation_deg": start.elevation_deg, "distance": start.distance}
        last = {"azimuth_deg": WHOLE_CIRCLE_DEG, **whole}
        return whole | {
            name: tuple(low + share * (high - low) for low, high in zip(bounds, last[name], strict=True))
            for name, bounds in first.items()
        }

    def _shaken(self, cameras: Cameras) -> Cameras:
        """The cameras with small random errors, where that is wanted."""
        errors = self.config.camera_jitter
        if errors.position == errors.target == errors.roll_deg == 0:
            return cameras
        return shaken(cameras, self.generator, **errors.model_dump())

    def _random_background(self) -> Tensor | None:
        """(views, 3) random plain colours with the configured probability, else None for the field's own."""
        if torch.rand(1, generator=self.generator).item() >= self.config.random_background_probability:
            return None
        low, high = self.config.random_background_range
        drawn = torch.rand(self.config.views_per_step, 3, generator=self.generator)
        return low + (high - low) * drawn
