"""Which side of a field is its front? The azimuth from which a scorer sees it so."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dreambooth3d.nerf.cameras import VIEW_WORDS, Cameras, orbit_cameras, view_word
from dreambooth3d.nerf.field import Field
from dreambooth3d.nerf.rendering import render_images
from dreambooth3d.nerf.sampling import DenseSampler

ViewLogits = Callable[[Tensor], Tensor]
"""From images (n, 3, h, w) in [0, 1] to logits (n, words) of `VIEW_WORDS`."""

AZIMUTH_STEP_DEG = 10.0
ELEVATIONS_DEG = (5.0, 25.0)
TRIED_DEG = torch.arange(-45.0, 45.1, 2.5)
LOWEST = -4.0
"""Log-probability below which a view is just wrong, so that single ones do not decide."""
PLATEAU = 0.02
LEAST_GAIN = 0.03
RENDER_SIZE = 64
SAMPLES_PER_RAY = 48
GREY = 0.7


@torch.no_grad()
def front_azimuth(field: Field, view_logits: ViewLogits) -> float:
    """Azimuth in degrees, in [-45, 45], that is the middle of the field's front as a scorer sees it.

    Guidance by view words leaves a field's heading open within the width of a word; here it is the one by which the
    most views are what their words say. 0 where that says hardly more than the heading at present.
    """
    azimuth = torch.arange(0.0, 360.0, AZIMUTH_STEP_DEG)
    cameras = Cameras.cat([orbit_cameras(azimuth, elevation_deg=elevation) for elevation in ELEVATIONS_DEG])
    device = field.occupancy.density.device
    grey = torch.full((3,), GREY, device=device)
    sampler = DenseSampler(SAMPLES_PER_RAY)
    images = render_images(field, cameras.to(device), size=RENDER_SIZE, sampler=sampler, background=grey).color
    # No camera here is overhead.
    probability = view_logits(images)[:, : VIEW_WORDS.index("overhead")].log_softmax(-1).clamp(min=LOWEST)

    def agreement(heading_deg: float) -> Tensor:
        words = [VIEW_WORDS.index(view_word(angle - heading_deg, 0.0)) for angle in cameras.azimuth_deg.tolist()]
        return probability[torch.arange(len(words)), torch.tensor(words)].mean()

    agreements = torch.stack([agreement(heading) for heading in TRIED_DEG.tolist()])
    if agreements.max() < agreement(0.0) + LEAST_GAIN:
        return 0.0
    return TRIED_DEG[agreements >= agreements.max() - PLATEAU].mean().item()
