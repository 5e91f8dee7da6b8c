"""Telling a subject from a smooth background, without a segmentation network.

Where it concerns photos alone, `dreambooth3d.backdrops` does so without torch.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from dreambooth3d.backdrops import (
    BACKGROUND_SHARES,
    FIT_ROUNDS,
    FIT_SCALE,
    MAX_CUT_SHARE,
    MIN_BORDER_SHARE,
    RIDGE,
    TOLERANCE,
    background_pixels,
)

UNSURE = (0.1, 0.9)
UNSURE_WIDTH, MAX_UNSURE = 0.05, 0.5
"""Width of an unsure region in terms of the photo's side, and the largest share of a subject that may be unsure."""


def smooth_background(images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
    """(n, 3, height, width): what lies behind the subjects of images (n, 3, height, width) in [0, 1].

    A colour that changes linearly over the frame, fitted to the border; where that does not describe the border, as
    with a floor before a wall, each row's colour between its two ends.
    """
    linear, rows = _linear_background(images), _row_background(images)
    ends = images[..., [0, -1]].diff(dim=-1).abs().amax(dim=(1, 3))  # (n, height): do a row's ends agree?
    level = (ends <= TOLERANCE).float().mean(1) >= MIN_BORDER_SHARE
    better = _border_share(images, rows) > _border_share(images, linear)
    return torch.where((level & better)[:, None, None, None], rows, linear)


def _border_share(images: Tensor, background: Tensor) -> Tensor:
    """(n,) share of border pixels that are as the background says."""
    edge = border_pixels(images.shape[-2], images.shape[-1], images.device)
    return ((images - background)[..., edge].abs().amax(1) <= TOLERANCE).float().mean(1)


def _row_background(images: Tensor) -> Tensor:
    """Each row's colours from its left end to its right end, linearly."""
    share = torch.linspace(0, 1, images.shape[-1], device=images.device)
    return torch.lerp(images[..., :1], images[..., -1:], share)


def _linear_background(images: Tensor) -> Tensor:
    """A colour that is linear in both directions, fitted to the border.

    Border pixels that do not fit, such as those of a subject that touches the border, lose their weight in a few
    rounds.
    """
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device), torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )  # fmt: skip
    basis = torch.stack([torch.ones_like(x), x, y], dim=-1)  # (height, width, 3)
    border = border_pixels(height, width, images.device)
    rows, colors = basis[border], images[..., border].transpose(1, 2)  # (p, 3), (n, p, 3)
    ridge = RIDGE * torch.eye(3, device=images.device)
    expected = colors.median(dim=1, keepdim=True).values
    fit = colors.new_zeros(len(colors), 3, 3)  # (n, 3 terms, 3 colours)
    for _ in range(FIT_ROUNDS):
        weighted = rows.T[None] * _agreement(colors, expected)[:, None]  # (n, 3, p)
        fit = torch.linalg.solve(weighted @ rows + ridge, weighted @ colors)
        expected = rows @ fit
    return (basis @ fit[:, None]).permute(0, 3, 1, 2).clamp(0, 1)


def border_pixels(
    height: int, width: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "{height} {width}"]:
    """(height, width) bool: the outermost pixels of a frame."""
    edge = torch.zeros(height, width, dtype=torch.bool, device=device)
    edge[[0, -1], :] = True
    edge[:, [0, -1]] = True
    return edge


def _agreement(colors: Tensor, expected: Tensor, scale: float = FIT_SCALE) -> Tensor:
    """(n, p) weight in (0, 1] of each pixel: small where it is far from what is expected."""
    return 1 / (1 + ((colors - expected).abs().amax(-1) / scale) ** 4)


def background_mask(image: Float[Tensor, "3 height width"]) -> Bool[Tensor, "height width"]:
    """(height, width) bool: where an image (3, height, width) in [0, 1] shows its smooth background.

    These are the pixels like `smooth_background` that connect to the border. If too little of the border is like it,
    the background is not smooth, and nothing is masked.
    """
    difference = (image - smooth_background(image[None])[0]).abs().amax(0)
    return torch.from_numpy(background_pixels(difference.detach().cpu().numpy())).to(image.device)


def subject_masks(
    images: Float[Tensor, "n 3 height width"],
) -> tuple[Bool[Tensor, "n height width"], Bool[Tensor, " n"]]:
    """The subjects of images (n, 3, height, width) in [0, 1] before smooth backgrounds.

    Returns:
        masks (n, height, width) bool, and (n,) bool whether each can be trusted: the background is smooth, and the
        subject is there, does not fill the frame and is hardly cut by it.
    """
    background = torch.stack([background_mask(image) for image in images])
    low, high = BACKGROUND_SHARES
    share = background.float().mean(dim=(1, 2))
    edge = border_pixels(images.shape[-2], images.shape[-1], images.device)
    cut = (~background[:, edge]).float().mean(1)
    return ~background, (share > low) & (share < high) & (cut <= MAX_CUT_SHARE)


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
