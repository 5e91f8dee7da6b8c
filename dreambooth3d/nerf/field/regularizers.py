"""Regularisers of a radiance field: of what its rays meet, and of its logits."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from nerfacc import accumulate_along_rays
from torch import Tensor

from dreambooth3d.nerf.field.encoding import Encoding
from dreambooth3d.nerf.rendering.sampling import BALL_RADIUS, Samples
from dreambooth3d.nerf.rendering.volume import RayRendering
from dreambooth3d.transfer import send

SMOOTHNESS_POINTS = 16384
EIKONAL_POINTS = 8192


class Logits(Protocol):
    """What smoothness asks of a field."""

    @property
    def encoding(self) -> Encoding:
        """Where its logits come from."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        ...

    def logits(self, points: Tensor) -> Tensor:
        """(n, 4) logits of density and colour at points (n, 3) in world units."""
        ...


def orientation(rendering: RayRendering, directions: Float[Tensor, "rays 3"]) -> Float[Tensor, ""]:
    """Mean over rays of sum_i w_i max(0, n_i . d)^2: visible normals should not face away from the camera.

    Weights are constants here, so that the loss turns normals rather than removing density.

    Args:
        rendering: with normals.
        directions: (rays, 3) unit ray directions, away from the camera.

    Source: Verbin et al. 2022, "Ref-NeRF", eq. 11.
    """
    if rendering.normals is None:
        raise ValueError("The orientation loss needs a rendering with normals: render with_normals=True.")
    away = (rendering.normals * directions[rendering.samples.rays]).sum(-1).clamp(min=0)
    return (rendering.weights.detach() * away.square()).sum() / len(directions)


def distortion(samples: Samples, weights: Float[Tensor, " samples"]) -> Float[Tensor, ""]:
    """Mean over rays of sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i: weight along a ray should be in one place.

    Distances are in diameters of the unit ball. Linear time: with samples in order along a ray, the double sum is
    2 sum_i w_i (m_i W_i - M_i) with W and M the sums of w and w m before i.

    Args:
        samples: packed samples.
        weights: (samples,) their weights.

    Source: Barron et al. 2022, "Mip-NeRF 360", eq. 15.
    """
    middle = (samples.starts + samples.ends) / (4 * BALL_RADIUS)
    width = (samples.ends - samples.starts) / (2 * BALL_RADIUS)
    # float64, since sums on a ray are differences of sums over all rays.
    precise, place = weights.double(), middle.double()
    counts = torch.zeros(samples.ray_count, dtype=torch.long, device=weights.device)
    counts.index_add_(0, samples.rays.long(), torch.ones_like(samples.rays, dtype=torch.long))
    first = (torch.cumsum(counts, 0) - counts)[samples.rays]
    before, moment = _sums_before(precise, first), _sums_before(precise * place, first)
    pairs = 2 * precise * (place * before - moment)
    return (pairs + precise.square() * width / 3).sum().to(weights.dtype) / samples.ray_count


def depth_variance(
    samples: Samples, weights: Float[Tensor, " samples"], opacity: Float[Tensor, " rays"]
) -> Float[Tensor, ""]:
    """Variance of depth along rays that are more than half opaque, in squared world units; a mean over all rays.

    Args:
        samples: packed samples.
        weights: (samples,) their weights; along a ray they are taken for shares of its opacity.
        opacity: (rays,) sums of the weights.

    Source: HiFA (Zhu et al. 2023), the z-variance loss.
    """
    middle = ((samples.starts + samples.ends) / 2)[:, None]
    shares = weights / opacity.clamp(min=1e-6)[samples.rays]
    mean = accumulate_along_rays(shares, middle, samples.rays, samples.ray_count)
    spread = accumulate_along_rays(shares, (middle - mean[samples.rays]).square(), samples.rays, samples.ray_count)
    seen = (opacity.detach() > 0.5).to(weights.dtype)
    return (spread[:, 0] * seen).mean()


def _sums_before(values: Tensor, first: Tensor) -> Tensor:
    """(samples,) sum of the values before each sample on its own ray, whose first sample is `first` (samples,)."""
    total = torch.cumsum(values, 0) - values
    return total - total[first]


def total_variation(volume: Float[Tensor, "1 channels z y x"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring voxels of a volume (1, channels, z, y, x), summed over the three axes.

    Source: Fridovich-Keil et al. 2022, "Plenoxels", eq. 5, squared instead of its root.
    """
    along_z, along_y, along_x = (volume.diff(dim=axis).square().mean() for axis in (2, 3, 4))
    return along_z + along_y + along_x


def sampled_variation(field: Logits, generator: torch.Generator, first: int = 0) -> Float[Tensor, ""]:
    """An estimate of `total_variation` for a field that is no volume, from random cells of its finest detail."""
    corner = 2 * torch.rand(SMOOTHNESS_POINTS, 3, generator=generator) - 1
    moves = torch.cat([torch.zeros(1, 3), torch.eye(3)]) * field.encoding.detail_size
    points = send((corner[None] + moves[:, None]).view(-1, 3), field.device)
    here, *beside = field.logits(points)[:, first:].chunk(4)
    along_x, along_y, along_z = ((there - here).square().mean() for there in beside)
    return along_x + along_y + along_z


def smoothness(field: Logits, generator: torch.Generator, first: int = 0) -> Float[Tensor, ""]:
    """Total variation of the logits from `first` on, at all voxels of a dense volume or at random points."""
    volume = field.encoding.volume()
    return sampled_variation(field, generator, first) if volume is None else total_variation(volume[:, first:])


class Distances(Protocol):
    """What the eikonal loss asks of a field."""

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        ...

    def distance_gradient(self, points: Tensor) -> Tensor:
        """(n, 3) gradient of the signed distance at points (n, 3) of its frame."""
        ...


def eikonal(field: Distances, generator: torch.Generator) -> Float[Tensor, ""]:
    """Mean of (|gradient of the signed distance| - 1)^2 at random points of the unit ball.

    Source: Gropp et al. 2020, "Implicit Geometric Regularization for Learning Shapes", eq. 4.
    """
    directions = torch.nn.functional.normalize(torch.randn(EIKONAL_POINTS, 3, generator=generator), dim=-1)
    radii = BALL_RADIUS * torch.rand(EIKONAL_POINTS, 1, generator=generator).pow(1 / 3)
    points = send(directions * radii, field.device)
    return (field.distance_gradient(points).norm(dim=-1) - 1).square().mean()


def emptiness(samples: Samples, weights: Float[Tensor, " samples"], scale: float) -> Float[Tensor, ""]:
    """Mean over all samples of log(1 + scale * weight): space should be empty, and thin haze costs the most.

    Args:
        samples: packed samples; those that were skipped, since nothing is there, count as empty.
        weights: (samples,) their weights.
        scale: how soon a weight counts in full.

    Source: Score Jacobian Chaining (Wang et al. 2023), the emptiness loss.
    """
    return torch.log1p(scale * weights).sum() / (samples.ray_count * samples.samples_per_ray)
