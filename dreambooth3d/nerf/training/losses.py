"""Losses that any asset can be given: regularisers of its opacity, and the reconstruction of target views."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

HUBER_DELTA = 0.1
RIM_SHARE = 7 / 64
LEAST_DEPTH = 1e-2


def sparsity(opacity: Float[Tensor, "*rays"]) -> Float[Tensor, ""]:
    """Mean of sqrt(opacity^2 + 0.01) over rays (...,): keeps rays that nothing pays for empty.

    Source: Poole et al. 2022, "DreamFusion", appendix A.2 (opacity regularisation).
    """
    return (opacity.square() + 0.01).sqrt().mean()


def opacity_entropy(opacity: Float[Tensor, "*rays"]) -> Float[Tensor, ""]:
    """Mean binary entropy, in nats, of opacities (...,): rays should hit or miss."""
    share = opacity.clamp(1e-3, 1 - 1e-3)
    return -(share * share.log() + (1 - share) * (1 - share).log()).mean()


def center_depth(depth: Float[Tensor, "n size size"]) -> Float[Tensor, ""]:
    """Mean over images of -log(mean depth in the middle - mean depth at the rim): the subject belongs in the middle.

    The rim is an image's outer `RIM_SHARE` on each side. A difference that is not positive has the loss, and nearly the
    gradient, of a very small one, so that the middle of an empty image still fills.

    Args:
        depth: (n, size, size) in world units, 0 where there is nothing.

    Source: Score Jacobian Chaining (Wang et al. 2023), the centre-depth loss.
    """
    rim = max(1, round(RIM_SHARE * depth.shape[-1]))
    middle = torch.zeros_like(depth[0], dtype=torch.bool)
    middle[rim:-rim, rim:-rim] = True
    difference = depth[:, middle].mean(dim=1) - depth[:, ~middle].mean(dim=1)
    # Below the least difference a line goes on where the logarithm would end.
    line = (difference.clamp(max=LEAST_DEPTH) - LEAST_DEPTH) / LEAST_DEPTH
    return -(difference.clamp(min=LEAST_DEPTH).log() + line).mean()


def reconstruction(
    color: Float[Tensor, "rays 3"],
    opacity: Float[Tensor, " rays"],
    target: Float[Tensor, "rays 3"],
    background: Float[Tensor, "rays 3"],
    known: Float[Tensor, " rays"] | None = None,
) -> Float[Tensor, ""]:
    """Huber loss of rays composited on the target's own background, mean over rays and channels.

    img2img moves the plain background that a pseudo view was rendered on, so the field is shown on the background that
    the pseudo view has now (`masks.smooth_background`): its shift then says nothing about the subject. Huber, as single
    pixels of a pseudo view may be wrong in one view only.

    Args:
        color: (rays, 3) without background.
        opacity: (rays,).
        target: (rays, 3) pixels of the pseudo views.
        background: (rays, 3) background behind each of them.
        known: (rays,) weights in [0, 1] of the mean, None for 1.
    """
    composite = color + (1 - opacity)[:, None] * background
    if known is None:
        return torch.nn.functional.huber_loss(composite, target, delta=HUBER_DELTA)
    errors = torch.nn.functional.huber_loss(composite, target, delta=HUBER_DELTA, reduction="none").mean(1)
    return (errors * known).sum() / known.sum().clamp(min=1)


def silhouette(
    opacity: Float[Tensor, " rays"], mask: Float[Tensor, " rays"], trusted: Float[Tensor, " rays"]
) -> Float[Tensor, ""]:
    """Mean binary cross entropy of opacities (rays,) against masks (rays,) in [0, 1], over the trusted rays only."""
    share = opacity.clamp(1e-3, 1 - 1e-3)
    entropy = torch.nn.functional.binary_cross_entropy(share, mask, reduction="none")
    return (entropy * trusted).sum() / trusted.sum().clamp(min=1)
