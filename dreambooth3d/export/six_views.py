"""An asset from six sides, as one picture."""

from __future__ import annotations

from pathlib import Path

import torch

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import TURNTABLE_DISTANCE, TURNTABLE_FOV_Y_DEG, Cameras
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.export.turntable import upsample
from dreambooth3d.images import save_image, sheet
from dreambooth3d.kinds import render_asset
from dreambooth3d.runtime import Runtime

FILE = "six_views.png"
SIDES = ((0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (270.0, 0.0), (0.0, 89.0), (0.0, -89.0))
"""Azimuth and elevation in degrees of front, left, back, right, top and bottom; at 90 there would be no way up."""


def six_cameras() -> Cameras:
    """The cameras of `SIDES`, at the turntable's distance."""
    azimuth, elevation = torch.tensor(SIDES).unbind(1)
    full = torch.ones_like(azimuth)
    return Cameras(azimuth, elevation, full * TURNTABLE_DISTANCE, full * TURNTABLE_FOV_Y_DEG)


def write_six_views(asset: RadianceField, config: ExportConfig, folder: Path, runtime: Runtime) -> None:
    """Write `six_views.png`: front, left, back; right, top, bottom, on white."""
    rendering = render_asset(
        asset, six_cameras(), size=config.frame_rays, samples_per_ray=config.samples_per_ray, background="white",
        device=runtime.device,
    )  # fmt: skip
    views = upsample(rendering.color.detach().float().cpu().clamp(0, 1), config.frame_size)
    save_image(sheet(views, columns=3), folder / FILE)
