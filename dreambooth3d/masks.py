"""Telling a subject from a smooth background, without a segmentation network: `dreambooth3d.backdrops`, for tensors."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from dreambooth3d import backdrops

UNSURE = (0.1, 0.9)
UNSURE_WIDTH, MAX_UNSURE = 0.05, 0.5
"""Width of an unsure region in terms of the photo's side, and the largest share of a subject that may be unsure."""


def smooth_background(images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
    """(n, 3, height, width): what lies behind the subjects of images (n, 3, height, width) in [0, 1].

    See `backdrops.smooth_background`; nothing is differentiable.
    """
    behind = np.stack([backdrops.smooth_background(image) for image in _pixels(images)])
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(behind, -1, 1))).to(images)


def background_mask(image: Float[Tensor, "3 height width"]) -> Bool[Tensor, "height width"]:
    """(height, width) bool: where an image (3, height, width) in [0, 1] shows its smooth background.

    These are the pixels like `smooth_background` that connect to the border. If too little of the border is like it,
    the background is not smooth, and nothing is masked.
    """
    return ~subject_masks(image[None])[0][0]


def subject_masks(
    images: Float[Tensor, "n 3 height width"],
) -> tuple[Bool[Tensor, "n height width"], Bool[Tensor, " n"]]:
    """The subjects of images (n, 3, height, width) in [0, 1] before smooth backgrounds.

    Returns:
        masks (n, height, width) bool, and (n,) bool whether each can be trusted: the background is smooth, and the
        subject is there, does not fill the frame and is hardly cut by it.
    """
    masks, trusted = zip(*(backdrops.subject_pixels(image) for image in _pixels(images)), strict=True)
    return torch.from_numpy(np.stack(masks)).to(images.device), torch.tensor(trusted, device=images.device)


def _pixels(images: Tensor) -> list[backdrops.Image]:
    """Each image (height, width, 3), on the CPU."""
    return list(np.ascontiguousarray(images.detach().float().cpu().movedim(1, -1).numpy()))


def unsure_regions(masks: Float[Tensor, "n height height"]) -> Bool[Tensor, "n height height"]:
    """(n, height, height) where masks are neither one thing nor the other over more than an outline.

    Nowhere in a mask that is unsure of most of its subject: the rest of it would be another thing.
    """
    low, high = UNSURE
    side = 2 * round(UNSURE_WIDTH * masks.shape[-1] / 2) + 1
    unsure = ((masks > low) & (masks < high)).float()[:, None]
    narrow = -max_pool2d(-unsure, side, 1, side // 2)
    wide = max_pool2d(narrow, side, 1, side // 2)[:, 0] > 0.5
    solid = masks > 0.5
    mostly = (solid & wide).sum(dim=(1, 2)) > MAX_UNSURE * solid.sum(dim=(1, 2))
    return wide & ~mostly[:, None, None]
