"""Volume rendering: rays through density and colour become images, opacity and depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from dreambooth3d.cameras import Viewpoints
from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid
from dreambooth3d.nerf.rendering.sampling import Sampler, Samples
from dreambooth3d.representation.interface import ALBEDO, Rendering
from dreambooth3d.representation.shading import Shading

RAYS_PER_CHUNK = 16384


class Volume(Protocol):
    """What volume rendering asks of a field."""

    @property
    def occupancy(self) -> OccupancyGrid:
        """Where there is anything."""
        ...

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (n,) in inverse world units and albedo (n, 3) in [0, 1] at points (n, 3) in world units.

        What has latents (n, channels) in place of albedo is rendered to latents.
        """
        ...

    def normals(self, points: Tensor) -> Tensor:
        """Unit normals (n, 3) at points (n, 3)."""
        ...

    def background(self, directions: Tensor) -> Tensor:
        """Colours (n, 3) in [0, 1] behind it along unit directions (n, 3)."""
        ...


@dataclass(frozen=True)
class RayRendering:
    """Rays through a field, with all that regularisers look at.

    Attributes:
        color: (rays, 3) weighted colour, without background; (rays, channels) where it is latents.
        opacity: (rays,) in [0, 1].
        depth: (rays,) expected distance along the ray in world units, 0 where there is nothing.
        samples: the evaluated samples.
        weights: (samples,) contribution of each sample.
        normals: (samples, 3) of unit length, or None if nobody asked.
    """

    color: Float[Tensor, "rays channels"]
    opacity: Float[Tensor, " rays"]
    depth: Float[Tensor, " rays"]
    samples: Samples
    weights: Float[Tensor, " samples"]
    normals: Float[Tensor, "samples 3"] | None = None

    def pixel_normals(self) -> Float[Tensor, "rays 3"]:
        """(rays, 3): the weighted mean of the normals along each ray, of unit length; 0 where there is nothing.

        Raises:
            ValueError: it has no normals.
        """
        if self.normals is None:
            raise ValueError("This rendering has no normals: render with_normals=True.")
        total = accumulate_along_rays(self.weights, self.normals, self.samples.rays, self.samples.ray_count)
        return torch.nn.functional.normalize(total, dim=-1, eps=1e-6)


def sample_weights(samples: Samples, density: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Weights (samples,) of packed samples with density (samples,): transmittance times alpha.

    Source: NeRF (Mildenhall et al. 2020), eq. 3.
    """
    if samples.slots is None or samples.bounds is None:
        weights, _, _ = render_weight_from_density(
            samples.starts, samples.ends, density, ray_indices=samples.rays, n_rays=samples.ray_count
        )
        return weights
    # Skipped samples have no density, so they may take part in the dense layout, which needs no CUDA scan.
    flat = density.new_zeros(samples.ray_count * samples.samples_per_ray).scatter(0, samples.slots, density)
    starts, ends = samples.bounds
    weights, _, _ = render_weight_from_density(starts, ends, flat.view_as(starts))
    return weights.flatten().gather(0, samples.slots)


def render_rays(
    field: Volume,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    *,
    sampler: Sampler,
    generator: torch.Generator | None = None,
    shading: Shading = ALBEDO,
    views: Int[Tensor, " rays"] | None = None,
    with_normals: bool = False,
    samples: Samples | None = None,
) -> RayRendering:
    """Composite `field` along rays.

    Args:
        origins: (rays, 3) in world units; the subject lives in the unit ball.
        directions: (rays, 3) of unit length.
        sampler: chooses the samples.
        generator: jitters them, on the rays' device; without it the result is deterministic.
        shading: how albedo becomes colour.
        views: (rays,) index of each ray's view, for the light; needed unless the shading is albedo.
        with_normals: return normals also if the shading does not need them.
        samples: the sampler's, where they have been taken already.

    Returns:
        Colour without background: add `(1 - opacity) * background`.

    Source: NeRF (Mildenhall et al. 2020), eq. 3, by nerfacc.
    """
    if samples is None:
        samples = sampler(origins, directions, field.occupancy, generator)
    density, color = field.density_and_color(samples.points)
    normals = field.normals(samples.points) if with_normals or shading.needs_normals else None
    if normals is not None and shading.needs_normals:
        if views is None:
            raise ValueError(f"shading.mode={shading.mode!r} needs the view of each ray: give views.")
        color = shading.shade(color, normals, samples.points, views[samples.rays])
    weights = sample_weights(samples, density)
    middle = (samples.starts + samples.ends) / 2
    values = torch.cat([color, middle[:, None], torch.ones_like(middle)[:, None]], dim=-1)
    total = accumulate_along_rays(weights, values, samples.rays, samples.ray_count)
    opacity = total[:, -1]
    depth = total[:, -2] / opacity.clamp(min=1e-6)
    return RayRendering(total[:, :-2], opacity, depth, samples, weights, normals)


@dataclass(frozen=True)
class CameraRendering:
    """What `render_cameras` returns: images over a background, and the rays they came from."""

    images: Float[Tensor, "n channels size size"]
    rays: RayRendering


@dataclass(frozen=True)
class SampledRays:
    """Rays (rays, 3) in world units, directions of unit length, and their samples."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]
    samples: Samples


def sample_cameras(
    field: Volume, cameras: Viewpoints, size: int, sampler: Sampler, generator: torch.Generator | None
) -> SampledRays:
    """All rays of square images of n cameras, and the samples along them."""
    origins, directions = (rays.reshape(-1, 3) for rays in cameras.rays(size, size))
    return SampledRays(origins, directions, sampler(origins, directions, field.occupancy, generator))


def render_cameras(
    field: Volume,
    cameras: Viewpoints,
    size: int,
    *,
    sampler: Sampler,
    background: Float[Tensor, "n channels"] | None = None,
    generator: torch.Generator | None = None,
    shading: Shading = ALBEDO,
    with_normals: bool = False,
    sampled: SampledRays | None = None,
) -> CameraRendering:
    """Render square training images, differentiably and all rays at once.

    Args:
        cameras: n cameras on the field's device.
        size: pixels per side.
        background: (n, 3) plain colour of each view, or its latents (n, channels); None for the field's own.
        generator, shading, with_normals: see `render_rays`.
        sampled: the cameras' rays and samples, where they have been taken already.

    Returns:
        images (n, 3, size, size) in [0, 1], or (n, channels, size, size) latents, and the n * size * size rays.
    """
    if sampled is None:
        sampled = sample_cameras(field, cameras, size, sampler, generator)
    origins, directions = sampled.origins, sampled.directions
    views = torch.arange(len(cameras), device=origins.device).repeat_interleave(size * size)
    rays = render_rays(
        field,
        origins,
        directions,
        sampler=sampler,
        generator=generator,
        shading=shading,
        views=views,
        with_normals=with_normals,
        samples=sampled.samples,
    )
    behind = field.background(directions) if background is None else background[views]
    color = rays.color + (1 - rays.opacity)[:, None] * behind
    return CameraRendering(color.view(len(cameras), size, size, -1).permute(0, 3, 1, 2), rays)


@torch.no_grad()
def render_images(
    field: Volume,
    cameras: Viewpoints,
    *,
    size: int,
    sampler: Sampler,
    background: str | Float[Tensor, " 3"] = "white",
    chunk: int = RAYS_PER_CHUNK,
    with_normals: bool = False,
) -> Rendering:
    """Render a field for looking at: deterministic, albedo, without gradients, `chunk` rays at a time.

    Args:
        cameras: n cameras on the field's device.
        size: pixels per side.
        background: `white`, `own` (the field's background), or one plain colour (3,).
        with_normals: return normals as well.
    """
    origins, directions = cameras.rays(size, size)
    shape = origins.shape[:-1]
    origins, directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
    colors, opacities, depths, normals = [], [], [], []
    for start, ray in zip(origins.split(chunk), directions.split(chunk), strict=True):
        part = render_rays(field, start, ray, sampler=sampler, with_normals=with_normals)
        colors.append(part.color + (1 - part.opacity)[:, None] * _plain(background, field, ray))
        opacities.append(part.opacity)
        depths.append(part.depth)
        if with_normals:
            normals.append(part.pixel_normals())
    return Rendering(
        torch.cat(colors).view(*shape, 3).permute(0, 3, 1, 2).clamp(0, 1),
        torch.cat(opacities).view(shape).clamp(0, 1),
        torch.cat(depths).view(shape),
        torch.cat(normals).view(*shape, 3).permute(0, 3, 1, 2) if with_normals else None,
    )


def _plain(background: str | Tensor, field: Volume, directions: Tensor) -> Tensor:
    """Background colours (rays, 3)."""
    if isinstance(background, Tensor):
        return background.to(directions).expand_as(directions)
    if background == "own":
        return field.background(directions)
    if background == "white":
        return torch.ones_like(directions)
    raise ValueError(f"background={background!r}: expected 'white', 'own' or a colour tensor of shape (3,).")
