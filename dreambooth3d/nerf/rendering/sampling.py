"""Where a ray is sampled: between its bounds in the unit ball, and only where the occupancy grid sees something."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from nerfacc import OccGridEstimator
from torch import Tensor

from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid

BALL_RADIUS = 1.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """The samples to evaluate, packed.

    Attributes:
        points: (samples, 3) where the field is evaluated, in world units.
        rays: (samples,) index of each sample's ray, ascending.
        starts, ends: (samples,) bounds of each sample's interval along its ray, in world units.
        slots: (samples,) position in a flat (rays * samples_per_ray) layout, or None if there is no such layout.
        ray_count: number of rays.
        samples_per_ray: columns of that layout.
        bounds: the layout's interval bounds: starts (rays, samples_per_ray) and ends alike, or None.
    """

    points: Tensor
    rays: Tensor
    starts: Tensor
    ends: Tensor
    ray_count: int
    samples_per_ray: int
    slots: Tensor | None = None
    bounds: tuple[Tensor, Tensor] | None = None


class Sampler(Protocol):
    """Chooses samples along rays."""

    def __call__(
        self, origins: Tensor, directions: Tensor, occupancy: OccupancyGrid, generator: torch.Generator | None
    ) -> Samples:
        """Samples of rays (rays, 3); jittered by a generator on their device, deterministic without one."""
        ...


def ball_bounds(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"]]:
    """Where rays (rays, 3) enter and leave the unit ball, in world units along unit directions: near, far (rays,).

    Both are 0 for a ray that misses; near is at least 0.
    """
    closest = -(origins * directions).sum(-1)
    squared = BALL_RADIUS**2 - (origins + closest[:, None] * directions).square().sum(-1)
    half = squared.clamp(min=0).sqrt()
    far = (closest + half).clamp(min=0) * (squared > 0)
    near = (closest - half).clamp(min=0)
    return torch.minimum(near, far), far


@dataclass(frozen=True)
class DenseSampler:
    """Equal intervals between a ray's bounds in the ball; those in empty cells are left out. Any device."""

    samples_per_ray: int

    def __call__(
        self, origins: Tensor, directions: Tensor, occupancy: OccupancyGrid, generator: torch.Generator | None
    ) -> Samples:
        """See `Sampler`; one point per interval, at a random place in it or at its middle."""
        count, device = self.samples_per_ray, origins.device
        near, far = ball_bounds(origins.detach(), directions.detach())
        width = ((far - near) / count)[:, None]
        starts = near[:, None] + width * torch.arange(count, device=device)
        if generator is None:
            places = starts + width * 0.5
        else:
            places = starts + width * torch.rand(starts.shape, generator=generator, device=device)
        keep = occupancy.occupied_along(origins, directions, places) & (width > 0)
        slots = keep.flatten().nonzero()[:, 0]
        rays = torch.div(slots, count, rounding_mode="floor")
        at = places.flatten().index_select(0, slots)[:, None]
        ends = starts + width
        return Samples(
            points=torch.addcmul(origins.index_select(0, rays), directions.index_select(0, rays), at),
            rays=rays,
            starts=starts.flatten().index_select(0, slots),
            ends=ends.flatten().index_select(0, slots),
            ray_count=len(origins),
            samples_per_ray=count,
            slots=slots,
            bounds=(starts, ends),
        )


@dataclass(frozen=True)
class OccupancySampler:
    """nerfacc's marching through occupied cells with steps of one length; CUDA only."""

    samples_per_ray: int

    def __call__(
        self, origins: Tensor, directions: Tensor, occupancy: OccupancyGrid, generator: torch.Generator | None
    ) -> Samples:
        """See `Sampler`; a ray through the ball's centre gets `samples_per_ray` steps."""
        estimator = _estimator(occupancy.resolution, origins.device)
        estimator.binaries = occupancy.occupied[None]
        near, far = ball_bounds(origins.detach(), directions.detach())
        step = 2 * BALL_RADIUS / self.samples_per_ray
        if generator is not None:
            near = near + step * torch.rand(near.shape, generator=generator, device=near.device)
        rays, starts, ends = estimator.sampling(
            origins.contiguous(),
            directions.contiguous(),
            t_min=near,
            t_max=far,
            render_step_size=step,
        )
        points = origins[rays] + directions[rays] * ((starts + ends) / 2)[:, None]
        return Samples(points, rays, starts, ends, len(origins), self.samples_per_ray)


@functools.lru_cache(maxsize=4)
def _estimator(resolution: int, device: torch.device) -> OccGridEstimator:
    """nerfacc's grid over [-1, 1]^3; making one copies megabytes to the device and waits for it."""
    return OccGridEstimator([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], resolution).to(device)


@functools.cache
def nerfacc_cuda_available() -> bool:
    """Whether nerfacc's CUDA code can be used here; the first call may compile it, about a minute."""
    if not torch.cuda.is_available():
        return False
    try:
        from nerfacc.cuda._backend import _C
    except Exception as error:  # a compiler error can be of any type
        logger.info("nerfacc's CUDA code did not compile (%s)", error)
        return False
    return _C is not None


def make_sampler(config: RenderConfig, device: torch.device | str) -> Sampler:
    """The sampler that `config.sampler` asks for; without nerfacc's CUDA code it is the dense one, with a log line."""
    if config.sampler == "dense" or (config.sampler == "auto" and torch.device(device).type == "cpu"):
        return DenseSampler(config.samples_per_ray)
    if torch.device(device).type == "cuda" and nerfacc_cuda_available():
        return OccupancySampler(config.samples_per_ray)
    logger.warning("nerfacc's occupancy sampling needs CUDA and its compiled extension: sampling densely instead")
    return DenseSampler(config.samples_per_ray)
