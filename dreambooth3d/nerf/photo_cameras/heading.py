"""Which side of an asset is its front? The azimuth about which a scorer sees its views as mirrored."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dreambooth3d.cameras import VIEW_WORDS, Cameras, orbit_cameras
from dreambooth3d.representation.interface import Representation

ViewLogits = Callable[[Tensor], Tensor]
"""From images (n, 3, h, w) in [0, 1] to logits (n, words) of `VIEW_WORDS`."""

AZIMUTHS = 36
ELEVATIONS_DEG = (5.0, 25.0)
LIMIT_DEG = 45.0
STEP_DEG = 0.5
RENDER_SIZE = 64
SAMPLES_PER_RAY = 48
GREY = 0.7


@torch.no_grad()
def front_azimuth(asset: Representation, view_logits: ViewLogits) -> float:
    """Azimuth in degrees, in [-45, 45], that is the middle of the asset's front as a scorer sees it.

    Guidance by view words leaves an asset's heading open within the width of a word. What a scorer makes of views from
    the left of the front, it makes of those from the right as well; the heading is the axis of that mirror symmetry,
    whatever the scorer's borders between the words.
    """
    azimuth = torch.arange(AZIMUTHS) * (360.0 / AZIMUTHS)
    cameras = Cameras.cat([orbit_cameras(azimuth, elevation_deg=elevation) for elevation in ELEVATIONS_DEG])
    grey = torch.full((3,), GREY)
    images = asset.render(cameras, RENDER_SIZE, samples_per_ray=SAMPLES_PER_RAY, background=grey).color
    # No camera here is overhead.
    logits = view_logits(images)[:, : VIEW_WORDS.index("overhead")]
    return mirror_axis(logits.view(len(ELEVATIONS_DEG), AZIMUTHS, -1))


def mirror_axis(logits: Tensor) -> float:
    """Axis in degrees, in [-45, 45], about which curves of logits (curves, n, words) over all n azimuths are mirrored.

    The correlation of a curve f with its mirror image about h, the sum of f(h + a) f(h - a), is that of the squares of
    its Fourier coefficients times exp(2 i k h).
    """
    curves = logits - logits.mean(dim=-1, keepdim=True)
    count = curves.shape[1]
    squares = torch.fft.rfft(curves, dim=1)[:, 1 : (count + 1) // 2].square().sum(dim=(0, 2))
    orders = torch.arange(1, len(squares) + 1, device=squares.device)
    tried = torch.arange(-LIMIT_DEG, LIMIT_DEG + STEP_DEG / 2, STEP_DEG, device=squares.device)
    waves = torch.polar(torch.ones(len(tried), len(orders)), 2 * math.pi / 180 * tried[:, None] * orders)
    return tried[(waves * squares).real.sum(dim=1).argmax()].item()
