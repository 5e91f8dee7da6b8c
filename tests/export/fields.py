"""Analytic and tiny real fields for the export tests."""

from __future__ import annotations

import torch
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Cameras, turntable_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.export.casting import Pictures
from dreambooth3d.export.source import DensityAndColor, Source
from dreambooth3d.nerf.field.radiance_field import Field

RADIUS = 0.5


def ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """A ball of radius 0.5 with density 10 at its surface; red towards +x (front), green above, else blue."""
    density = 10 + 100 * (RADIUS - points.norm(dim=-1))
    color = torch.zeros_like(points)
    color[:, 0] = (points[:, 0] > 0.3).float()
    color[:, 1] = ((points[:, 0] <= 0.3) & (points[:, 2] > 0.3)).float()
    color[:, 2] = 1 - color[:, :2].sum(dim=1)
    return density.clamp(min=0), color


def blob_field() -> RadianceField:
    """A dense volume that holds nothing but its initial blob."""
    config = FieldConfig(encoding="dense", volume_resolution=24, blob_density=8.0, blob_radius=0.6)
    field = Field(config, "cpu", occupancy_resolution=16)
    return RadianceField(field.state(), config.model_dump(), torch.ones(1, 3, 8, 8), steps=0)


def rainbow_ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """The same ball, whose colour tells where it is: half of the position, plus one half."""
    return ball(points)[0], (0.5 + 0.5 * points).clamp(0, 1)


def as_source(function: DensityAndColor) -> Source:
    """A function as an asset that nobody has to look at."""

    def render(cameras: Cameras, size: int) -> Pictures:
        raise AssertionError("nothing is to be rendered")

    return Source(function, render)


def no_pictures() -> tuple[Cameras, Pictures]:
    """Nothing to be seen, from one side."""
    return turntable_cameras(1), Pictures(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16))
