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
AZIMUTH_STEP_DEG = 360.0 / AZIMUTHS
ELEVATIONS_DEG = (5.0, 25.0)
LIMIT_DEG = 45.0
STEP_DEG = 0.5
RENDER_SIZE = 64
SAMPLES_PER_RAY = 48
GREY = 0.7


def facing_azimuth(asset: Representation, view_logits: ViewLogits) -> float:
    """Azimuth in degrees, in [-180, 180), of the asset's front as a scorer sees it, wherever that is."""
    return facing_axis(_view_curves(asset, view_logits))


def facing_axis(logits: Tensor) -> float:
    """Heading in degrees, in [-180, 180), of curves of logits (curves, n, words) over all n azimuths.

    Where `mirror_axis` knows that the front is near 0, here it is first where the words that are expected all around
    are likeliest, and then the axis of mirror symmetry near that.
    """
    words = orbit_cameras(torch.arange(AZIMUTHS) * AZIMUTH_STEP_DEG).view_words()
    expected = torch.tensor([VIEW_WORDS.index(word) for word in words])
    likelihood = logits.log_softmax(dim=-1)[:, torch.arange(AZIMUTHS)[:, None], expected[None]].mean(dim=0)
    # likelihood[k, j]: what is seen at azimuth k is what is expected at j; a heading h has j = k - h.
    places = torch.arange(AZIMUTHS)
    sums = torch.stack([likelihood[places, (places - turn) % AZIMUTHS].sum() for turn in range(AZIMUTHS)])
    turn = int(sums.argmax())
    heading = turn * AZIMUTH_STEP_DEG + mirror_axis(logits.roll(-turn, dims=1))
    return (heading + 180.0) % 360.0 - 180.0


def front_azimuth(asset: Representation, view_logits: ViewLogits) -> float:
    """Azimuth in degrees, in [-45, 45], that is the middle of the asset's front as a scorer sees it.

    Guidance by view words leaves an asset's heading open within the width of a word. What a scorer makes of views from
    the left of the front, it makes of those from the right as well; the heading is the axis of that mirror symmetry,
    whatever the scorer's borders between the words.
    """
    return mirror_axis(_view_curves(asset, view_logits))


@torch.no_grad()
def _view_curves(asset: Representation, view_logits: ViewLogits) -> Tensor:
    """(elevations, azimuths, words) logits of views from all around, without that of overhead."""
    azimuth = torch.arange(AZIMUTHS) * AZIMUTH_STEP_DEG
    cameras = Cameras.cat([orbit_cameras(azimuth, elevation_deg=elevation) for elevation in ELEVATIONS_DEG])
    grey = torch.full((3,), GREY)
    images = asset.render(cameras, RENDER_SIZE, samples_per_ray=SAMPLES_PER_RAY, background=grey).color
    # No camera here is overhead.
    logits = view_logits(images)[:, : VIEW_WORDS.index("overhead")]
    return logits.view(len(ELEVATIONS_DEG), AZIMUTHS, -1)


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
