"""Where were the photos taken from? Cameras from the subject's silhouettes alone, before there is any field.

A point of the subject lies inside every silhouette. So each pixel of a silhouette needs a point along its ray that all
other photos see inside theirs; with wrong cameras there is none (silhouette coherence: Hernandez, Schmitt and Cipolla,
"Silhouette Coherence for Camera Calibration under Circular Motion", PAMI 2007). Silhouettes also tell left from right,
which neither a scorer's view words nor a young field does. Where they do not, as with a can, colours decide: those of
neighbouring photos at the first such point.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d

from dreambooth3d.artifacts import POSE_FACTS, SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_DISTANCE, TURNTABLE_FOV_Y_DEG, Cameras, wrap_degrees

PHOTO_SIZE = 64
MIN_PHOTOS = 3
MIN_TOLD = 2
MAX_MISS = 1.5e-3
"""Mean miss beyond which the silhouettes do not belong together, as where masks are wrong."""
STARTS = 48
ROUNDS = (
    # kept starts, steps, rays per photo, points per ray, learning rate in degrees
    (STARTS, 20, 64, 20, 3.0),
    (16, 40, 96, 24, 2.0),
    (4, 50, 160, 32, 1.5),
)
COLOR_ROUNDS = 1
"""So many of the last rounds look at colours too."""
AMBIGUOUS = 2e-4
"""By how much the score of cameras on another side must be worse, or silhouettes do not tell the side."""
OTHER_SIDE_DEG = 45.0
DISTANCE_SHARE = 0.008
"""Step of the logarithm of a distance for one degree of the angles."""
ADAM_BETAS = (0.8, 0.95)
FINAL_RAYS = 500
SETTLED_DEG = 30.0
ELEVATION_DEG, ELEVATION_SPREAD_DEG = 20.0, 15.0
DISTANCE_SPREAD = 0.08
OFF_FRONT_FREE_DEG, OFF_FRONT_SPREAD_DEG = 10.0, 15.0
PRIOR_WEIGHT = 1e-3
MISS_WEIGHT = 2.0
COLOR_WEIGHT = 0.03
MAX_COLOR_DIFFERENCE = 0.5
RIM_PIXELS = 2
INSIDE = -0.01
SEEN_BY_BOTH_COS = 0.5
"""Cosine of the angle between two photos' directions beyond which they do not see the same side of the subject."""


@dataclass(frozen=True)
class SolvedCameras:
    """What was found for n photos.

    Attributes:
        cameras: the n cameras, of the usual field of view.
        miss: (n,) how far outside another silhouette the pixels' best points lie, mean, in halves of the frame.
        told: (n,) bool, whether cameras on quite another side explain the silhouettes clearly worse.
    """

    cameras: Cameras
    miss: Float[Tensor, " n"]
    told: Bool[Tensor, " n"]


def locate_photos(photos: SubjectPhotos) -> SubjectPhotos:
    """The photos with azimuth_deg, elevation_deg and distance of each one's camera in `facts`, where they can be told.

    NaN for photos whose mask cannot be trusted or whose side silhouettes do not tell, and for all of them where the
    silhouettes do not belong together.
    """
    images = photos.resized(PHOTO_SIZE)
    masks, trusted = photos.masks_resized(PHOTO_SIZE), photos.trusted
    found = torch.full((3, len(images)), math.nan)
    if trusted.sum() >= MIN_PHOTOS and photos.off_front_deg:
        off_front = torch.tensor(photos.off_front_deg)[trusted]
        solved = cameras_from_silhouettes(images[trusted], masks[trusted], off_front)
        if solved.miss.mean() <= MAX_MISS and solved.told.sum() >= MIN_TOLD:
            cameras = solved.cameras
            poses = torch.stack([cameras.azimuth_deg, cameras.elevation_deg, cameras.distance])
            found[:, trusted] = poses.masked_fill(~solved.told, math.nan)
    columns = {name: values.round(decimals=2).tolist() for name, values in zip(POSE_FACTS, found, strict=True)}
    return replace(photos, facts=photos.facts.assign(**columns))


def cameras_from_silhouettes(
    images: Float[Tensor, "n 3 size size"],
    masks: Shaped[Tensor, "n size size"],
    off_front_deg: Float[Tensor, " n"],
    seed: int = 0,
) -> SolvedCameras:
    """Find the cameras by which the photos' silhouettes agree best.

    The search starts from the estimated angles off the front, once for each choice of sides, and keeps the best in
    rounds. All cameras look at the origin, upright, as everywhere in this library.

    Args:
        images: (n, 3, size, size) photos in [0, 1], n at least `MIN_PHOTOS`.
        masks: (n, size, size) of the subject, in [0, 1].
        off_front_deg: (n,) angle between camera and front in [0, 180], as a scorer estimates it.
        seed: of starts and sampled pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    problem = _Problem.of(images, masks, off_front_deg)
    state = _starts(off_front_deg, generator)
    rivals, rival_score, points = state, torch.zeros(state.shape[1]), 0
    for number, (kept, steps, rays, points, rate) in enumerate(ROUNDS):
        colored = number >= len(ROUNDS) - COLOR_ROUNDS
        if number > 0:
            rival_score = problem.score(state, points, colored=False, rays=3 * rays)
            rivals = state
            state = state[:, rival_score.argsort()[:kept]]
        state = problem.improve(state, steps, rays, points, rate, colored, generator)
    score = problem.score(state, 2 * points, colored=True, rays=FINAL_RAYS)
    best = state[:, score.argmin()]
    miss, _ = problem.errors(best[:, None], problem.pixels(FINAL_RAYS, _fixed()), 2 * points)
    azimuth, elevation, log_distance = best
    full = torch.full_like(azimuth, TURNTABLE_FOV_Y_DEG)
    cameras = Cameras(wrap_degrees(azimuth), elevation, log_distance.exp(), full)
    return SolvedCameras(cameras, miss[0], _told(azimuth, rivals[0], rival_score))


def _told(azimuth: Tensor, rivals: Tensor, score: Tensor) -> Tensor:
    """(n,) bool: no rival (starts, n) of a score (starts,) near the best puts the photo on quite another side.

    Cameras that are all turned alike are the same.
    """
    apart = wrap_degrees(rivals - azimuth)
    apart = wrap_degrees(apart - apart.median(dim=1, keepdim=True).values).abs() > OTHER_SIDE_DEG
    return ~(apart & (score < score.min() + AMBIGUOUS)[:, None]).any(dim=0)


def _fixed() -> torch.Generator:
    """The same pixels whenever starts are compared."""
    return torch.Generator().manual_seed(1)


def _starts(off_front_deg: Tensor, generator: torch.Generator) -> Tensor:
    """(3, starts, n) azimuth, elevation and logarithm of the distance: all choices of sides, scattered.

    Photos from the very front and the very back move through 0 and 180 degrees by themselves.
    """
    count = len(off_front_deg)
    ahead, behind = int(off_front_deg.argmin()), int(off_front_deg.argmax())
    settled = {ahead} if off_front_deg[ahead] < SETTLED_DEG else set()
    settled |= {behind} if off_front_deg[behind] > 180 - SETTLED_DEG else set()
    open_ones = [index for index in range(count) if index not in settled]
    sides = torch.tensor(list(itertools.product((1.0, -1.0), repeat=len(open_ones)))).view(-1, len(open_ones))
    if len(sides) > STARTS:
        sides = sides[torch.randperm(len(sides), generator=generator)[:STARTS]]
    signs = torch.ones(len(sides), count)
    signs[:, open_ones] = sides
    signs = signs.repeat(max(1, STARTS // len(sides)), 1)

    def scattered(middle: Tensor | float, spread: float) -> Tensor:
        return middle + spread * torch.randn(signs.shape, generator=generator)

    return torch.stack(
        [
            scattered(signs * off_front_deg, 8.0),
            scattered(ELEVATION_DEG, 8.0),
            scattered(math.log(TURNTABLE_DISTANCE), 0.03),
        ]
    )


@dataclass(frozen=True)
class _Problem:
    """What cameras have to explain.

    Attributes:
        depth_inside: (n, h, w) distance to the outline in halves of the frame, positive inside.
        colors: (n, 3, h, w) blurred photos with the subject's mean colour around it.
        off_front_deg: (n,).
        inner, rim: pixel centres (k, 2) of each mask, x to the right and y up, in [-1, 1].
    """

    depth_inside: Tensor
    colors: Tensor
    off_front_deg: Tensor
    inner: tuple[Tensor, ...]
    rim: tuple[Tensor, ...]

    @staticmethod
    def of(images: Tensor, masks: Tensor, off_front_deg: Tensor) -> _Problem:
        solid = masks > 0.5
        size = masks.shape[-1]
        depth = torch.stack([_depth_inside(mask) for mask in solid]) * (2 / size)
        weight = solid[:, None].float()
        mean = (images * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
        colors = avg_pool2d(images * weight + mean * (1 - weight), 3, 1, 1)
        eroded = -max_pool2d(-weight, 2 * RIM_PIXELS + 1, 1, RIM_PIXELS)[:, 0]
        rim = solid & (eroded < 0.5)
        return _Problem(
            depth, colors, off_front_deg, tuple(map(_centres, solid)), tuple(map(_centres, rim))
        )  # fmt: skip

    def pixels(self, count: int, generator: torch.Generator) -> Tensor:
        """(n, count, 2) random pixels of each silhouette, half of them at its rim."""

        def some(places: Tensor, count: int) -> Tensor:
            return places[torch.randint(len(places), (count,), generator=generator)]

        pairs = zip(self.inner, self.rim, strict=True)
        return torch.stack([torch.cat([some(a, count // 2), some(b, count - count // 2)]) for a, b in pairs])

    def improve(
        self, state: Tensor, steps: int, rays: int, points: int, rate: float, colored: bool, generator: torch.Generator
    ) -> Tensor:
        """The starts (3, starts, n) after some steps of Adam on random pixels."""
        unknown = [values.clone().requires_grad_() for values in state]
        rates = (rate, rate, rate * DISTANCE_SHARE)
        groups = [{"params": [values], "lr": own} for values, own in zip(unknown, rates, strict=True)]
        optimizer = torch.optim.Adam(groups, betas=ADAM_BETAS)
        for step in range(steps):
            for group, own in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = own * (1 - 0.9 * step / steps)
            shift = torch.rand(1, generator=generator).item() - 0.5
            now = torch.stack(unknown)
            miss, color = self.errors(now, self.pixels(rays, generator), points, shift, colored)
            optimizer.zero_grad()
            (miss + COLOR_WEIGHT * color + PRIOR_WEIGHT * self.prior(now)).mean(1).sum().backward()
            optimizer.step()
        return torch.stack(unknown).detach()

    @torch.no_grad()
    def score(self, state: Tensor, points: int, colored: bool, rays: int) -> Tensor:
        """(starts,) how bad each start is."""
        miss, color = self.errors(state, self.pixels(rays, _fixed()), points, colored=colored)
        return (MISS_WEIGHT * miss + COLOR_WEIGHT * color + PRIOR_WEIGHT * self.prior(state)).mean(1)

    def prior(self, state: Tensor) -> Tensor:
        """(starts, n) squared deviations from what is usual."""
        azimuth, elevation, log_distance = state
        off = (wrap_degrees(azimuth).abs() - self.off_front_deg).abs() - OFF_FRONT_FREE_DEG
        return (
            (off.clamp(min=0) / OFF_FRONT_SPREAD_DEG).square()
            + ((elevation - ELEVATION_DEG) / ELEVATION_SPREAD_DEG).square()
            + ((log_distance - math.log(TURNTABLE_DISTANCE)) / DISTANCE_SPREAD).square()
        )

    def errors(
        self, state: Tensor, pixels: Tensor, points: int, shift: float = 0.0, colored: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(starts, n) miss in halves of the frame, and difference in colour (0 unless asked), at pixels (n, p, 2)."""
        starts, count = state.shape[1:]
        azimuth, elevation, log_distance = (values.flatten() for values in state)
        cameras = Cameras(azimuth, elevation, log_distance.exp(), torch.full_like(azimuth, TURNTABLE_FOV_Y_DEG))
        pose = cameras.camera_to_world.view(starts, count, 4, 4)
        axes, position = pose[..., :3, :3], pose[..., :3, 3]
        half = math.tan(math.radians(TURNTABLE_FOV_Y_DEG) / 2)
        local = torch.cat([pixels * half, -torch.ones_like(pixels[..., :1])], dim=-1)
        directions = torch.nn.functional.normalize(torch.einsum("npk,bnck->bnpc", local, axes), dim=-1)
        along = torch.linspace(-1, 1, points) + shift * 2 / (points - 1)
        reach = log_distance.exp().view(starts, count, 1, 1) + along
        places = position[:, :, None, None] + directions[:, :, :, None] * reach[..., None]
        others = [self._seen_by(other, places, axes, position, half) for other in range(count)]
        not_itself = torch.eye(count, dtype=torch.bool)
        inside = torch.stack(
            [
                _sample(self.depth_inside[other], seen).masked_fill(not_itself[other][:, None, None], math.inf)
                for other, seen in enumerate(others)
            ]
        ).amin(dim=0)
        miss = (-inside.amax(dim=-1)).clamp(min=0).mean(-1)
        color = self._color_difference(pixels, inside, others, axes) if colored else torch.zeros_like(miss)
        return miss, color

    @staticmethod
    def _seen_by(other: int, places: Tensor, axes: Tensor, position: Tensor, half: float) -> Tensor:
        """(starts, n, p, points, 2) where a photo sees points, as `grid_sample` wants it."""
        local = torch.einsum("bnptc,bck->bnptk", places - position[:, other, None, None, None], axes[:, other])
        plane = local[..., :2] / (-half * local[..., 2:]).clamp(min=1e-3)
        return plane * plane.new_tensor([1.0, -1.0])

    def _color_difference(self, pixels: Tensor, inside: Tensor, others: list[Tensor], axes: Tensor) -> Tensor:
        """(starts, n) difference in colour to the photos that see the first point inside from nearly the same side."""
        own = torch.stack(
            [
                _sample(self.colors[index], pixels[index] * pixels.new_tensor([1.0, -1.0]))
                for index in range(len(pixels))
            ]
        )
        reached = inside > INSIDE
        first = reached.float().argmax(dim=-1)[..., None, None].expand(*inside.shape[:-1], 1, 2)
        backward = axes[..., 2]
        total = weights = torch.zeros(())
        for other, seen in enumerate(others):
            color = _sample(self.colors[other], seen.gather(3, first)[..., 0, :])
            difference = (color - own).abs().mean(-1).clamp(max=MAX_COLOR_DIFFERENCE)
            together = (backward * backward[:, other, None]).sum(-1)
            weight = ((together - SEEN_BY_BOTH_COS) / (1 - SEEN_BY_BOTH_COS)).clamp(min=0)
            weight = weight * (torch.arange(len(pixels)) != other)
            weight = weight[..., None] * reached.any(dim=-1)
            total, weights = total + difference * weight, weights + weight
        return total.mean(-1) / weights.mean(-1).clamp(min=0.05)


def _sample(image: Tensor, places: Tensor) -> Tensor:
    """Values (...,) of an image (h, w), or (..., c) of (c, h, w), at places (..., 2)."""
    channels = image if image.dim() == 3 else image[None]
    values = grid_sample(
        channels[None], places.reshape(1, -1, 1, 2), align_corners=False, padding_mode="border"
    )[0, :, :, 0].T  # fmt: skip
    return values.view(*places.shape[:-1], -1) if image.dim() == 3 else values.view(places.shape[:-1])


def _depth_inside(mask: Tensor) -> Tensor:
    """(h, w) distance in pixels from each pixel centre to the outline of a bool mask, positive inside."""
    solid = mask.cpu().numpy()
    depth = torch.from_numpy(distance_transform_edt(solid) - distance_transform_edt(~solid)).float()
    return depth - 0.5 * depth.sign()


def _centres(mask: Tensor) -> Tensor:
    """(k, 2) centres of a mask's pixels, x to the right and y up, in [-1, 1]."""
    y, x = torch.nonzero(mask, as_tuple=True)
    height, width = mask.shape
    return torch.stack([(x + 0.5) * 2 / width - 1, 1 - (y + 0.5) * 2 / height], dim=-1)
