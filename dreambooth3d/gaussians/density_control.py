"""Adding Gaussians where they do not suffice, and removing those that show nothing.

Source: Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering", section 5.2. Here the
threshold of the gradient is relative, as the losses of the stages are of any size; a copy is moved against its
gradient, as the paper describes it; and a split keeps mean and covariance of what it replaces instead of drawing places
at random, so that an interrupted stage goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.representation.interface import Position

SHRINK = 1.6
"""Factor by which the longest axis of a Gaussian is shortened when it is split."""
FEWEST = 16
"""Gaussians that are always kept."""


@dataclass(frozen=True)
class Census:
    """The n Gaussians that there are, as adding and removing looks at them.

    Attributes:
        pull: (n,) mean length of the view-space gradients; 0 of those that were never seen.
        radius: (n,) standard deviation of the longest axis in world units.
        opacity: (n,) in [0, 1].
    """

    pull: Float[Tensor, " n"]
    radius: Float[Tensor, " n"]
    opacity: Float[Tensor, " n"]


@dataclass(frozen=True)
class Change:
    """What becomes of the n Gaussians, which are listed anew.

    Attributes:
        sources: (m,) index among the old ones of what each new one is made of.
        cloned: number of those, at the end but for the split ones, that are copies.
        split: number of those at the end that are halves: first the one of each, then the other.
    """

    sources: Int[Tensor, " m"]
    cloned: int
    split: int

    @property
    def kept(self) -> int:
        """Number of those, at the beginning, that stay as they are."""
        return len(self.sources) - self.cloned - self.split


def due(config: GaussiansConfig, position: Position) -> bool:
    """Whether Gaussians are added and removed after a step."""
    first, last = config.densify_share
    every = config.densify_every
    return every > 0 and (position.step + 1) % every == 0 and first <= position.progress < last


def reset_due(config: GaussiansConfig, position: Position) -> bool:
    """Whether opacities are lowered after a step."""
    every = config.opacity_reset_every
    return every > 0 and (position.step + 1) % every == 0 and position.progress < config.densify_share[1]


def planned(config: GaussiansConfig, census: Census) -> Change:
    """What becomes of the Gaussians."""
    fewest = census.opacity.argsort(descending=True)[:FEWEST]
    kept = (census.opacity >= config.prune_opacity) & (census.radius <= config.prune_radius)
    kept[fewest] = True
    mean = census.pull.sum() / (census.pull > 0).sum().clamp(min=1)
    wanted = kept & (census.pull > config.densify_threshold * mean)
    room = max(config.max_count - int(kept.sum()), 0)
    strongest = census.pull.where(wanted, torch.zeros_like(census.pull)).argsort(descending=True, stable=True)[:room]
    grown = torch.zeros_like(kept)
    grown[strongest] = True
    grown &= wanted
    split = grown & (census.radius >= config.split_radius)
    stay, cloned, halves = ((mask.nonzero()[:, 0]) for mask in (kept & ~split, grown & ~split, split))
    return Change(torch.cat([stay, cloned, halves, halves]), len(cloned), 2 * len(halves))


def clone_offsets(radius: Float[Tensor, " n"], gradient: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """(n, 3) by how much copies are moved: half a standard deviation against the gradients of the positions."""
    return -0.5 * radius[:, None] * nn.functional.normalize(gradient, dim=-1, eps=1e-30)


def halves(
    log_scales: Float[Tensor, "n 3"], axes: Float[Tensor, "n 3 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Logarithms of the scales (n, 3) of both halves of Gaussians, and the offset (n, 3) of the one; minus that of the
    other. Both together have the mean and the covariance of what they replace.

    Args:
        log_scales: (n, 3) along the Gaussians' axes.
        axes: (n, 3, 3) whose columns are those axes.
    """
    longest = log_scales.argmax(dim=1, keepdim=True)
    length = log_scales.gather(1, longest)
    offset = length.exp() * (1 - SHRINK**-2) ** 0.5
    direction = axes.gather(2, longest[:, None].expand(-1, 3, 1))[..., 0]
    shorter = torch.zeros_like(log_scales).scatter(1, longest, math.log(SHRINK))
    return log_scales - shorter, offset * direction


def replace_parameters(
    optimizer: torch.optim.Optimizer, replaced: Mapping[nn.Parameter, nn.Parameter], change: Change
) -> None:
    """Let an optimiser go on with new parameters in place of old ones; what has just been added begins without past.

    Args:
        replaced: new parameter, whose first dimension is the Gaussians', by the old one.
    """
    for group in optimizer.param_groups:
        group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
    for old, new in replaced.items():
        if (state := optimizer.state.pop(old, None)) is None:
            continue
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == old.shape:
                moved = value[change.sources].clone()
                moved[change.kept :] = 0
                state[name] = moved
        optimizer.state[new] = state
