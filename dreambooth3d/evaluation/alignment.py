"""The rotation about z and the scale that bring an asset closest to the truth.

Photos tell neither where a subject's front is nor how large it is; an aligned score says what is left of an error once
both are forgiven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.evaluation.pixels import Views

LOCAL_CAMERAS = 4
FIRST_STEP_SHARE = 0.5
FIRST_SCALE_STEP = 0.08
LAST_TURN_DEG = 0.5
MAX_ROUNDS = 24
_MOVES = ((0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0))


@dataclass(frozen=True)
class Alignment:
    """How an asset is moved.

    Attributes:
        azimuth_deg: by how many degrees it is turned, counter-clockwise seen from above.
        scale: by which factor it grows.
    """

    azimuth_deg: float = 0.0
    scale: float = 1.0

    def cameras(self, cameras: Cameras) -> Cameras:
        """From where the asset as it is looks as the moved one does from `cameras`."""
        return replace(
            cameras,
            azimuth_deg=cameras.azimuth_deg - self.azimuth_deg,
            distance=cameras.distance / self.scale,
        )

    def views(self, render: Callable[[Cameras], Views], cameras: Cameras) -> Views:
        """The moved asset seen from n cameras, with depths in world units."""
        views = render(self.cameras(cameras))
        return replace(views, depths=None if views.depths is None else views.depths * self.scale)


def fit_alignment(render: Callable[[Cameras], Views], views: Views, truth: Views, cameras: Cameras) -> Alignment:
    """Find the rotation and scale with the least squared error on white.

    Every rotation by the cameras' step is compared without rendering anew; then rotation and scale are refined on some
    of the cameras, by steps that are halved where none helps, down to half a degree and less than one percent.

    Args:
        render: the asset from any cameras.
        views: the asset from `cameras`.
        truth: the true subject from `cameras`.
        cameras: n cameras evenly around the subject, in order of azimuth, that share their elevation and distance.
            Not those that are scored.
    """
    count = len(cameras)
    step = 360.0 / count
    turned = [_error(views.images.roll(shift, dims=0), truth.images) for shift in range(count)]
    best = Alignment(step * min(range(count), key=turned.__getitem__))
    chosen = list(range(0, count, max(1, count // LOCAL_CAMERAS)))
    truth, cameras = truth[chosen], cameras[chosen]
    lowest = _error(best.views(render, cameras).images, truth.images)
    turn, growth = FIRST_STEP_SHARE * step, FIRST_SCALE_STEP
    for _ in range(MAX_ROUNDS):
        if turn < LAST_TURN_DEG:
            break
        candidates = [Alignment(best.azimuth_deg + turn * a, best.scale * (1 + growth) ** b) for a, b in _MOVES]
        together = render(Cameras.cat([candidate.cameras(cameras) for candidate in candidates])).images
        errors = [_error(images, truth.images) for images in together.split(len(cameras))]
        if min(errors) < lowest:
            lowest = min(errors)
            best = candidates[errors.index(lowest)]
        else:
            turn, growth = turn / 2, growth / 2
    return replace(best, azimuth_deg=wrap_degrees(torch.tensor(best.azimuth_deg)).item())


def _error(images: Tensor, truth: Tensor) -> float:
    return (images - truth).square().mean().item()
