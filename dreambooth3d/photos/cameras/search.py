"""The cameras of a few photos of one thing, from where it is in them and how it looks, and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.photos.cameras.centred import CentredPhotos
from dreambooth3d.photos.cameras.coherence import Coherence
from dreambooth3d.photos.cameras.placement import PlacedCameras
from dreambooth3d.photos.cameras.reconstruction import CAMERA_RATES, Reconstructions
from dreambooth3d.photos.cameras.starts import COLOR_WEIGHT, ViewPrior, azimuth_starts

MIN_PHOTOS = 3
CORE_PHOTOS = 6
STARTS = 96
OUTLINE_ROUNDS = ((48, 15, 48, 16, 3.0), (32, 20, 48, 20, 3.0), (24, 30, 48, 20, 2.0))
"""By silhouettes alone: sets of cameras that are kept after it, steps, rays, points per ray, rate in degrees."""
FIELD_ROUNDS = ((10, 30, 2.0), (5, 80, 2.0))
"""With a field for each set of cameras: sets kept after it, steps, rate in degrees."""
HELD_OUT_STEPS = 40
MISS_WEIGHT, PRIOR_WEIGHT = 2.0, 1e-3
SCORE_RAYS, SCORE_POINTS = 96, 24
PAIR_WEIGHT = 3e-4
"""As `starts.PAIR_WEIGHT`, but lower where only few explanations are kept: with 2e-3 a prior that was wrong turned a
photo of an avocado by 120 degrees, without it one of a bottle was 33 degrees off."""
USUAL_MISS, FIELD_MISS_WEIGHT = 5e-4, 6.0
"""Misses that true cameras have as well, and the weight of what is beyond them against a field's errors."""
SETS_AT_ONCE = 64
AROUND_STEP_DEG, AROUND_RAYS = 15.0, 100
ADDED_STEP_DEG, ADDED_KEPT = 10.0, 6
USUAL_FOV_Y_DEG = 43.0
FILM_LONG_SIDE_MM = 36.0
ADAM_BETAS = (0.8, 0.95)


@dataclass(frozen=True)
class FoundCameras:
    """What was found for n photos.

    Attributes:
        placed: the n cameras; the first photo's azimuth is 0.
        miss: (n,) how far outside another silhouette the pixels' best points lie, mean, in halves of the frame.
        rivals: azimuths (sets, k) of the explanations of the first k photos that were compared in the end.
        error: (sets,) of those, the best one's first: how badly photos are predicted that were held out.
        around: (k, directions) the same error, were one of the first k photos taken from so many steps of
            `AROUND_STEP_DEG` degrees farther round the subject, counter-clockwise.
    """

    placed: PlacedCameras
    miss: Float[Tensor, " n"]
    rivals: Float[Tensor, "sets k"]
    error: Float[Tensor, " sets"]
    around: Float[Tensor, "k directions"]

    def cpu(self) -> FoundCameras:
        """The same on the CPU."""
        rest = (values.cpu() for values in (self.miss, self.rivals, self.error, self.around))
        return FoundCameras(self.placed.cpu(), *rest)


def find_cameras(
    images: Float[Tensor, "n 3 height height"],
    masks: Float[Tensor, "n height height"],
    fov_y_deg: Float[Tensor, " n"],
    prior: ViewPrior | None = None,
    seed: int = 0,
    effort: float = 1.0,
) -> FoundCameras:
    """Find the cameras by which photos of one thing agree best.

    Many sets of azimuths (`azimuth_starts`) are improved by silhouettes, the best of them with a small field that has
    to show the photos, and the cameras are taken under which photos that were held out are predicted best. Of many
    photos, `CORE_PHOTOS` are located together and the others one after the other.

    Args:
        images: (n, 3, height, height) photos in [0, 1], n at least `MIN_PHOTOS`.
        masks: (n, height, height) of the subject, in [0, 1], none of them empty.
        fov_y_deg: (n,) of the photos.
        prior: what else is known of their directions.
        seed: of sampled pixels.
        effort: share of the usual number of sets.
    """
    generator = torch.Generator().manual_seed(seed)
    photos = CentredPhotos.of(images, masks, fov_y_deg)
    core = list(range(min(CORE_PHOTOS, len(photos))))
    own_prior = None if prior is None else prior[core]
    cameras = cameras_by_outlines(photos[core], generator, own_prior, effort)
    fine = Coherence(photos[core], 1, None if own_prior is None else own_prior.elevation_deg)
    cameras, error, around = _by_appearance(fine, cameras, generator, own_prior, effort)
    rivals = wrap_degrees(cameras[0])
    for added in range(len(core), len(photos)):
        cameras = _with_one_more(Coherence(photos[list(range(added + 1))]), cameras, generator)
    problem = Coherence(photos)
    if len(photos) > len(core):
        fields = Reconstructions(Coherence(photos, blur=1), cameras[:, :1])
        fields.fit(FIELD_ROUNDS[-1][1], generator, FIELD_ROUNDS[-1][2])
        cameras = fields.cameras
    miss = problem.miss(cameras[:, :1], problem.pixels(SCORE_RAYS, generator), SCORE_POINTS)[0]
    placed = photos.placed(*problem.cameras(cameras[:, 0]))
    return FoundCameras(placed, miss, rivals, error, around)


def cameras_by_outlines(
    photos: CentredPhotos, generator: torch.Generator, prior: ViewPrior | None = None, effort: float = 1.0
) -> Float[Tensor, "6 sets n"]:
    """Sets of cameras under which the silhouettes of n photos, 3 to `CORE_PHOTOS`, agree, the best one first."""
    problem = Coherence(photos, elevation_deg=None if prior is None else prior.elevation_deg)
    cameras = problem.neutral(azimuth_starts(photos, _some(STARTS, effort), generator, prior))
    for kept, *settings in OUTLINE_ROUNDS:
        parts = cameras.split(SETS_AT_ONCE, dim=1)
        cameras = torch.cat([_improved(problem, part, settings, generator) for part in parts], dim=1)
        cameras = cameras[:, _outline_score(problem, cameras, prior).argsort()[: _some(kept, effort)]]
    return cameras


def _some(count: int, effort: float) -> int:
    """At least one of so many sets."""
    return max(1, round(count * effort))


def _by_appearance(
    problem: Coherence, cameras: Tensor, generator: torch.Generator, prior: ViewPrior | None, effort: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The sets of cameras (6, sets, n) whose fields show the photos best, improved, and their errors; best first.

    And what speaks against each photo of the best set being taken from elsewhere, as `FoundCameras.around`.
    """
    for kept, steps, rate in FIELD_ROUNDS:
        fields = Reconstructions(problem, cameras)
        fields.fit(steps, generator, rate)
        error = sum(part.mean(1) for part in fields.errors())
        error = error + _against(problem, fields.cameras, prior)
        cameras = fields.cameras[:, error.argsort()[: _some(kept, effort)]]
    colors, fields = _held_out(problem, cameras, generator)
    error = colors + _against(problem, cameras, prior)
    around = _around(problem, fields, int(error.argmin()) * problem.count)
    return cameras[:, error.argsort()], error.sort().values, around


def _with_one_more(problem: Coherence, cameras: Tensor, generator: torch.Generator) -> Tensor:
    """The best of sets (6, sets, n - 1) with the camera of the n-th photo, as (6, 1, n)."""
    azimuth = torch.arange(0, 360, ADDED_STEP_DEG, device=problem.device)
    tried = problem.neutral(torch.zeros(len(azimuth), problem.count, device=problem.device))
    tried[:, :, :-1] = cameras[:, :1]
    tried[0, :, -1] = azimuth
    pixels = problem.pixels(SCORE_RAYS, generator)

    def energy(sets: Tensor) -> Tensor:
        with torch.no_grad():
            miss, colors = problem.evidence(sets, pixels, SCORE_POINTS)
        return MISS_WEIGHT * miss + COLOR_WEIGHT * colors + PRIOR_WEIGHT * problem.prior(sets).mean(1)

    tried = tried[:, energy(tried).argsort()[:ADDED_KEPT]]
    tried = _improved(problem, tried, OUTLINE_ROUNDS[-1][1:], generator)
    return tried[:, energy(tried).argsort()[:1]]


def _improved(problem: Coherence, cameras: Tensor, settings: Sequence[float], generator: torch.Generator) -> Tensor:
    """Sets of cameras (6, sets, n) after some steps of Adam on the silhouettes' coherence at random pixels.

    `settings` are steps, rays, points per ray and rate, as in `OUTLINE_ROUNDS`.
    """
    steps, rays, points = (int(number) for number in settings[:3])
    rate = settings[3]
    unknown = [values.clone().requires_grad_() for values in cameras]
    optimizer = torch.optim.Adam([{"params": [values], "lr": 0.0} for values in unknown], betas=ADAM_BETAS)
    for step in range(steps):
        for group, share in zip(optimizer.param_groups, CAMERA_RATES, strict=True):
            group["lr"] = rate * share * (1 - 0.9 * step / steps)
        shift = torch.rand(1, generator=generator).item() - 0.5
        now = torch.stack(unknown)
        miss = problem.miss(now, problem.pixels(rays, generator), points, shift)
        optimizer.zero_grad()
        (miss + PRIOR_WEIGHT * problem.prior(now)).mean(1).sum().backward()
        optimizer.step()
    return torch.stack(unknown).detach()


@torch.no_grad()
def _outline_score(problem: Coherence, cameras: Tensor, prior: ViewPrior | None) -> Tensor:
    """(sets,) how badly silhouettes and colours fit together under cameras (6, sets, n)."""
    pixels = problem.pixels(SCORE_RAYS, torch.Generator().manual_seed(1))
    parts = cameras.split(SETS_AT_ONCE, dim=1)
    seen = [problem.evidence(part, pixels, SCORE_POINTS) for part in parts]
    miss, colors = (torch.cat(values) for values in zip(*seen, strict=True))
    usual = PRIOR_WEIGHT * problem.prior(cameras).mean(1)
    return MISS_WEIGHT * miss + COLOR_WEIGHT * colors + usual + _prior_energy(cameras, prior)


def _prior_energy(cameras: Tensor, prior: ViewPrior | None) -> Tensor | float:
    """(sets,) what is known beforehand against cameras (6, sets, n)."""
    return 0.0 if prior is None else PAIR_WEIGHT * prior.energy(cameras[0])


@torch.no_grad()
def _against(problem: Coherence, cameras: Tensor, prior: ViewPrior | None) -> Tensor:
    """(sets,) what speaks against cameras (6, sets, n) besides the colours: outlines that do not fit, and the prior."""
    pixels = problem.pixels(SCORE_RAYS, torch.Generator().manual_seed(1))
    miss = (problem.miss(cameras, pixels, SCORE_POINTS) - USUAL_MISS).clamp(min=0).mean(1)
    return FIELD_MISS_WEIGHT * miss + _prior_energy(cameras, prior)


def _held_out(problem: Coherence, cameras: Tensor, generator: torch.Generator) -> tuple[Tensor, Reconstructions]:
    """(sets,) mean squared difference in colour of each photo from a field that was fitted to all others, and those.

    The fields are in order of sets, and within a set of the photos that each has not seen.
    """
    sets, count = cameras.shape[1:]
    fields = Reconstructions(problem, cameras.repeat_interleave(count, dim=1))
    others = 1 - torch.eye(count, device=problem.device).repeat(sets, 1)
    fields.fit(HELD_OUT_STEPS, generator, 0.0, others)
    return fields.errors()[0].view(sets, count, count).diagonal(dim1=1, dim2=2).mean(1), fields


@torch.no_grad()
def _around(problem: Coherence, fields: Reconstructions, first: int) -> Tensor:
    """(n, directions) what speaks against each photo being taken from so many steps farther round the subject.

    Against each photo the field that has not seen it is compared, of n fields from the `first` on.
    """
    turns = torch.arange(0, 360, AROUND_STEP_DEG, device=problem.device)
    curves = []
    for photo in range(problem.count):
        row = first + photo
        cameras = fields.cameras[:, row : row + 1].expand(-1, len(turns), -1).clone()
        cameras[0, :, photo] += turns
        color, _ = fields.seen_from(row, cameras).errors(AROUND_RAYS)
        curves.append(color[:, photo] / problem.count + _against(problem, cameras, None))
    return torch.stack(curves)


def assumed_fov_y_deg(focal_length_35mm: float | None) -> float:
    """Vertical field of view in degrees of a photo padded to a square, from its focal length in terms of 35 mm film.

    The longer side of the film's frame is 36 mm. Without a focal length it is what phones and cameras have on average
    once photos are cut to their subject.
    """
    if not focal_length_35mm or math.isnan(focal_length_35mm):
        return USUAL_FOV_Y_DEG
    return math.degrees(2 * math.atan(FILM_LONG_SIDE_MM / 2 / focal_length_35mm))
