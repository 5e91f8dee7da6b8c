"""Fitting an asset to the renders of another one."""

from __future__ import annotations

import torch

from dreambooth3d.gaussians.starting import surroundings
from dreambooth3d.representation.interface import Position, Representation

LEARNING_RATES = (1e-2, 2e-3)
"""Adam's at the start and at the end (exponential decay)."""
VIEWS_PER_STEP = 4
SAMPLES_PER_RAY = 64


def fit_to_renders(asset: Representation, source: Representation, steps: int, size: int) -> None:
    """Let `asset` look like `source` from all around; views are drawn from PyTorch's global generator.

    Args:
        asset: what learns.
        source: what it is to look like.
        steps: optimiser steps.
        size: pixels per side of the views.
    """
    cameras, black = surroundings(source.device), torch.zeros(3)
    wanted = source.render(cameras, size, samples_per_ray=SAMPLES_PER_RAY, background=black)
    color, opacity = wanted.color.to(asset.device), wanted.opacity.to(asset.device)
    groups = [
        {"params": list(group.parameters), "name": group.name, "rate_factor": group.rate_factor}
        for group in asset.parameter_groups()
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    first, last = LEARNING_RATES
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = first * (last / first) ** (step / steps) * group["rate_factor"]
        chosen = torch.randperm(len(cameras))[:VIEWS_PER_STEP]
        views = asset.render_views(cameras[chosen], size, background=black.expand(len(chosen), 3))
        loss = (views.color - color[chosen]).abs().mean() + (views.opacity - opacity[chosen]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        asset.after_step(Position(step, step / steps), optimizer)
    asset.zero_grad(set_to_none=True)
