"""Where were the photos taken from? Cameras of photos, by comparing them with renders of a field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dreambooth3d.cameras import Cameras, orbit_cameras, wrap_degrees
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.representation.interface import Representation

AZIMUTH_STEP_DEG = 10.0
ELEVATIONS_DEG = (0.0, 15.0, 30.0, 45.0, 65.0)
ELEVATION_LIMITS_DEG = (-15.0, 80.0)
SPREAD_DEG = 15.0
"""Usual error of the estimated angle off the front; only what exceeds it is penalised."""
MAX_OFF_DEG = 45.0
PENALTY = 0.1
ELSEWHERE = 1.25
"""Factor on the error far from where the photos themselves say that one was taken."""
OVERHEAD_FROM_DEG = 45.0
"""A photo seen from overhead is looked for above this elevation, every other one below the last of the grid."""
LOCAL_STEPS_DEG = (6.0, 3.0, 1.5)
DISTANCE_FACTORS = (0.94, 1.0, 1.06)
SILHOUETTE_WEIGHT = 0.5
"""Of the difference between opacity and mask, against that of colours: a young field's shape is truer than its paint,
and where subject and background are alike the colours do not show the outline."""
OUTLINE_QUANTILE = 0.995
"""Share of the subject's pixels that count as inside its outline; the rest may be specks."""
MIN_OVERLAP = 0.5
OTHER_SIDE_DEG = 40.0
MAX_MARGIN = 10.0
RENDER_SIZE = 48
SAMPLES_PER_RAY = 40


@dataclass(frozen=True)
class PhotoCameras:
    """What was found for n photos.

    Attributes:
        cameras: the n cameras.
        error: (n,) absolute difference of photo and render, in colour and outline, per pixel of the photo's subject.
        overlap: (n,) intersection over union of the subject's mask and the render's opacity.
        margin: (n,) by which share the best camera from quite another side is worse; small where sides look alike.
    """

    cameras: Cameras
    error: Tensor
    overlap: Tensor
    margin: Tensor

    @property
    def found(self) -> Tensor:
        """(n,) bool: the render lies where the photo's subject is."""
        return self.overlap >= MIN_OVERLAP

    def surest(self, count: int) -> Tensor:
        """(n,) bool: of those found, the `count` whose camera is the least ambiguous."""
        order = self.margin.masked_fill(~self.found, -float("inf")).argsort(descending=True)
        chosen = torch.zeros_like(self.found)
        chosen[order[:count]] = True
        return chosen & self.found


@torch.no_grad()
def find_cameras(
    field: Representation,
    photos: TargetViews,
    *,
    radius: float,
    distance: float,
    fov_y_deg: float,
    start: Cameras | None = None,
    kept: Tensor | None = None,
    located: Tensor | None = None,
) -> PhotoCameras:
    """Search each photo's camera: all directions that its view allows, then ever smaller steps around the best.

    Their common scale is that of the located ones, else the usual one (`usual_scale`). Roll and the subject's place in
    the frame are not searched: cameras look at the origin.

    Args:
        field: a first shape of the subject, of any kind.
        photos: n photos with masks, what a scorer makes of their views, and their cameras as the photos tell them.
        radius: usual one of a subject around the origin, in world units.
        distance: usual one of a camera, in world units.
        fov_y_deg: vertical field of view in degrees of all cameras.
        start: cameras of an earlier search; the new one starts from them where the grid has nothing better.
        kept: (n,) bool, the photos to which `start` applies; all without it.
        located: (n,) bool, those whose cameras the photos themselves have told: they stay where `start` says.
    """
    small = _Photos.of(photos, field.device)
    start = None if start is None else start.to("cpu")
    fixed = torch.zeros(len(photos), dtype=torch.bool) if start is None or located is None else located.cpu()
    if start is not None and fixed.all():
        return _compared(field, small, start)

    def scaled(cameras: Cameras) -> Cameras:
        if start is None or not fixed.any():
            return usual_scale(cameras, photos.masks, radius, distance)
        return start.map(lambda told, found: torch.where(fixed, told, found), cameras)

    usual = scaled(orbit_cameras(torch.zeros(len(photos)))).distance
    grid = _grid((usual[fixed] if fixed.any() else usual).mean().item(), fov_y_deg)
    error, _ = small.compare(_render(field, grid), None)
    error = error * _penalty(grid, photos).to(error.device)
    best = grid[error.argmin(dim=1).cpu()]
    margin = _margin(grid, error.cpu(), best)
    if start is not None:
        before, _ = small.compare(_render(field, start), torch.arange(len(photos)))
        before = before[:, 0] * _penalty(start, photos).diagonal().to(before.device)
        closer = (before <= error.min(dim=1).values).cpu()
        stays = closer if kept is None else closer & kept.cpu()
        best = start.map(lambda old, new: torch.where(stays, old, new), best)
    for step in LOCAL_STEPS_DEG:
        best = scaled(_improved(field, small, best, step))
    return replace(_compared(field, small, best), margin=margin)


def _compared(field: Representation, photos: _Photos, cameras: Cameras) -> PhotoCameras:
    """The photos compared with renders from their own cameras, which nothing else was compared with."""
    error, overlap = photos.compare(_render(field, cameras), torch.arange(len(cameras)))
    return PhotoCameras(cameras, error[:, 0].cpu(), overlap[:, 0].cpu(), torch.full((len(cameras),), MAX_MARGIN))


@torch.no_grad()
def view_errors(field: Representation, views: TargetViews) -> tuple[Tensor, Tensor]:
    """(n,) error and (n,) overlap, as in `PhotoCameras`, of a field with n views from their own cameras."""
    small = _Photos.of(views, field.device)
    error, overlap = small.compare(_render(field, views.known_cameras), torch.arange(len(views)))
    return error[:, 0], overlap[:, 0]


def usual_scale(cameras: Cameras, masks: Tensor, radius: float, distance: float) -> Cameras:
    """The photos' cameras at the likeliest common distance.

    Photos say how far away they were taken relative to each other, not in world units. Two guesses give the common
    scale, and their geometric mean is taken: the subject, as large as its outline in any photo shows it, has the usual
    radius, and the photos' mean distance is the usual one.

    Args:
        cameras: of n photos, on the CPU.
        masks: (n, height, width) of the subject.
        radius: usual one of a subject around the origin, in world units.
        distance: usual one of a camera, in world units.
    """
    far = cameras.distance
    outline = torch.stack(
        [sine_of_outline(mask[None], fov)[0] for mask, fov in zip(masks, cameras.fov_y_deg.tolist(), strict=True)]
    ).cpu()
    return replace(cameras, distance=far * (radius / (far * outline).max() * distance / far.mean()).sqrt())


def sine_of_outline(masks: Tensor, fov_y_deg: float) -> Tensor:
    """(n,) sine of the angle between the middle of the frame and the subject's farthest outline, of masks (n, h, w).

    Times the distance it is the radius of the smallest ball around the origin that hides the subject.
    """
    height, width = masks.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height, device=masks.device) + 0.5) * 2 / height - 1,
        ((torch.arange(width, device=masks.device) + 0.5) * 2 - width) / height,
        indexing="ij",
    )
    tangent = math.tan(math.radians(fov_y_deg) / 2) * (x.square() + y.square()).sqrt()
    farthest = [tangent[mask > 0.5].quantile(OUTLINE_QUANTILE) for mask in masks]
    return torch.stack(farthest).atan().sin()


@dataclass(frozen=True)
class _Photos:
    """Photos at the size of the compared renders: images and backgrounds (n, 3, s, s), masks and known (n, s, s)."""

    images: Tensor
    background: Tensor
    masks: Tensor
    known: Tensor

    @staticmethod
    def of(photos: TargetViews, device: torch.device) -> _Photos:
        def small(images: Tensor) -> Tensor:
            size = (RENDER_SIZE, RENDER_SIZE)
            return interpolate(images.to(device), size=size, mode="bilinear", antialias=True, align_corners=False)

        known = torch.ones_like(photos.masks) if photos.known is None else photos.known
        masks, known = (small(values[:, None])[:, 0] for values in (photos.masks, known))
        return _Photos(small(photos.images), small(photos.background), masks, known)

    def compare(self, renders: tuple[Tensor, Tensor], owner: Tensor | None) -> tuple[Tensor, Tensor]:
        """Errors and overlaps (n, k) of photos and renders, premultiplied colour (m, 3, s, s) and opacity (m, s, s).

        Every photo is compared with every render, or, with `owner` (m,) in blocks of equal length per photo, with its
        own ones only.
        """
        color, opacity = renders
        if owner is None:
            color, opacity = color[None], opacity[None]
        else:
            color = color.view(len(self.images), -1, *color.shape[1:])
            opacity = opacity.view(len(self.images), -1, *opacity.shape[1:])
        errors, overlaps = [], []
        photos = zip(self.images, self.background, self.masks, self.known, strict=True)
        for index, (image, background, mask, known) in enumerate(photos):
            part = 0 if owner is None else index
            shown = color[part] + (1 - opacity[part])[:, None] * background
            difference = (shown - image).abs().mean(1) + SILHOUETTE_WEIGHT * (opacity[part] - mask).abs()
            errors.append((difference * known).sum(dim=(1, 2)) / mask.sum().clamp(min=1))
            both, either = (known * pick(opacity[part], mask) for pick in (torch.minimum, torch.maximum))
            overlaps.append(both.sum(dim=(1, 2)) / either.sum(dim=(1, 2)).clamp(min=1e-6))
        return torch.stack(errors), torch.stack(overlaps)


def _grid(distance: float, fov_y_deg: float) -> Cameras:
    """Cameras from all around."""
    azimuth, elevation = torch.meshgrid(
        torch.arange(-180.0, 180.0, AZIMUTH_STEP_DEG), torch.tensor(ELEVATIONS_DEG), indexing="ij"
    )
    full = torch.ones(azimuth.numel())
    return Cameras(azimuth.flatten(), elevation.flatten(), full * distance, full * fov_y_deg)


def _penalty(grid: Cameras, photos: TargetViews) -> Tensor:
    """(photos, cameras) factor on the error: 1 near the estimated camera, infinite far from there.

    The estimate is that of the photos themselves, or a scorer's of the angle off the front. Where sides look alike, it
    decides; where they do not, the picture does. 1 throughout without estimate.
    """
    azimuth, elevation = wrap_degrees(grid.azimuth_deg), grid.elevation_deg
    factor = torch.ones(len(photos), len(grid))
    if photos.off_front_deg is not None:
        factor = _growing((azimuth.abs()[None] - photos.off_front_deg[:, None]).abs())
    if photos.cameras is not None:
        told = photos.cameras.azimuth_deg.to(azimuth.device)
        near_told = torch.minimum(_growing(wrap_degrees(azimuth[None] - told[:, None]).abs()), ELSEWHERE * factor)
        factor = torch.where(told[:, None].isnan(), factor, near_told)
    for index, word in enumerate(photos.words):
        if word == "overhead":
            factor[index] = torch.ones(len(grid)).masked_fill(elevation < OVERHEAD_FROM_DEG, float("inf"))
        else:
            factor[index, elevation >= ELEVATIONS_DEG[-1]] = float("inf")
    return factor


def _growing(off_deg: Tensor) -> Tensor:
    """Factor on the error of cameras so many degrees off an estimate."""
    beyond = (off_deg - SPREAD_DEG).clamp(min=0) / SPREAD_DEG
    return (1 + PENALTY * beyond.square()).masked_fill(beyond * SPREAD_DEG > MAX_OFF_DEG, float("inf"))


def _margin(grid: Cameras, error: Tensor, best: Cameras) -> Tensor:
    """(n,) relative excess of the lowest error (n, cameras) beyond `OTHER_SIDE_DEG` of azimuth from the best."""
    apart = wrap_degrees(grid.azimuth_deg[None] - best.azimuth_deg[:, None]).abs() > OTHER_SIDE_DEG
    other = error.masked_fill(~apart, float("inf")).min(dim=1).values
    lowest = error.min(dim=1).values
    return ((other - lowest) / lowest.clamp(min=1e-6)).clamp(max=MAX_MARGIN)


def _improved(field: Representation, photos: _Photos, best: Cameras, step_deg: float) -> Cameras:
    """The best of each photo's 27 neighbours in azimuth, elevation and distance."""
    moves = torch.cartesian_prod(
        torch.tensor((-1.0, 0.0, 1.0)), torch.tensor((-1.0, 0.0, 1.0)), torch.tensor(DISTANCE_FACTORS)
    )
    turn, lift, factor = moves.unbind(-1)
    low, high = ELEVATION_LIMITS_DEG
    around = Cameras(
        (best.azimuth_deg[:, None] + step_deg * turn).flatten(),
        (best.elevation_deg[:, None] + step_deg * lift).clamp(low, high).flatten(),
        (best.distance[:, None] * factor).flatten(),
        best.fov_y_deg.repeat_interleave(len(moves)),
    )
    owner = torch.arange(len(best)).repeat_interleave(len(moves))
    error, _ = photos.compare(_render(field, around), owner)
    return around[torch.arange(len(best)) * len(moves) + error.argmin(dim=1).cpu()]


def _render(field: Representation, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Premultiplied colour (m, 3, s, s) and opacity (m, s, s)."""
    rendering = field.render(cameras, RENDER_SIZE, samples_per_ray=SAMPLES_PER_RAY, background=torch.zeros(3))
    return rendering.color, rendering.opacity
