"""What lies behind a subject before a smooth background, and where it shows: in numpy, for who has no use for torch.

Images here are float32 arrays (height, width, 3) in [0, 1]. `dreambooth3d.masks` takes tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOLERANCE = 0.1
"""Largest difference from the background in any channel that still is background."""
MIN_TOLERANCE = 0.03
NOISE_MARGIN = 2.0
"""Times by which the differences inside a frame may exceed those at its border."""
MIN_BORDER_SHARE = 0.6
BACKGROUND_SHARES = (0.2, 0.995)
MAX_CUT_SHARE = 0.2
"""Largest share of the border that a subject may cover; beyond it the frame cuts the subject, or the mask is wrong."""
MAX_CUT_OUTLINE = 0.02
"""Share of a subject's outline on the frame up to which nothing of it is taken to be beyond the frame."""
RIDGE = 1e-3
FIT_ROUNDS = 4
FIT_SCALE = 0.05
"""Difference from what is expected at which a border pixel has half of its weight in the fit."""
FINE_SIZE = 256
"""Pixels per side at which photos are masked."""
ALL_NEIGHBOURS = np.ones((3, 3), dtype=bool)

Image = NDArray[np.float32]
Pixels = NDArray[np.bool_]


def smooth_background(image: Image) -> Image:
    """(height, width, 3): what lies behind the subject.

    A colour that changes linearly over the frame, fitted to the border; where that does not describe the border, as
    with a floor before a wall, each row's colour between its two ends.
    """
    linear, rows = _linear_background(image), _row_background(image)
    ends = np.abs(image[:, -1] - image[:, 0]).max(-1)  # (height,): do a row's ends agree?
    level = (ends <= TOLERANCE).mean() >= MIN_BORDER_SHARE
    return rows if level and _border_share(image, rows) > _border_share(image, linear) else linear


def _border_share(image: Image, background: Image) -> float:
    """Share of border pixels that are as the background says."""
    edge = border_pixels(*image.shape[:2])
    return float((np.abs(image[edge] - background[edge]).max(-1) <= TOLERANCE).mean())


def _row_background(image: Image) -> Image:
    """Each row's colours from its left end to its right end, linearly."""
    left, right = image[:, :1], image[:, -1:]
    share = np.linspace(0, 1, image.shape[1], dtype=np.float32)[None, :, None]
    return (left + share * (right - left)).astype(np.float32, copy=False)


def _linear_background(image: Image) -> Image:
    """A colour that is linear in both directions, fitted to the border.

    Border pixels that do not fit, such as those of a subject that touches the border, lose their weight in a few
    rounds.
    """
    height, width = image.shape[:2]
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32), indexing="ij"
    )
    basis = np.stack([np.ones_like(x), x, y], axis=-1)  # (height, width, 3)
    border = border_pixels(height, width)
    rows, colors = basis[border], image[border]  # (p, 3) each
    middle = (len(colors) - 1) // 2
    expected = np.partition(colors, middle, axis=0)[middle]
    fit = np.zeros((3, 3), dtype=np.float32)  # (3 terms, 3 colours)
    for _ in range(FIT_ROUNDS):
        apart = np.abs(colors - expected).max(-1)
        weighted = rows.T / (1 + (apart / np.float32(FIT_SCALE)) ** 4)  # (3, p)
        fit = np.linalg.solve(weighted @ rows + RIDGE * np.eye(3, dtype=np.float32), weighted @ colors)
        expected = rows @ fit
    return (basis @ fit).clip(0, 1)


def border_pixels(height: int, width: int) -> Pixels:
    """(height, width): the outermost pixels of a frame."""
    edge = np.ones((height, width), dtype=bool)
    edge[1:-1, 1:-1] = False
    return edge


def background_pixels(difference: NDArray[np.float32]) -> Pixels:
    """(height, width): where an image shows its smooth background.

    These are the pixels like the background that connect to the border. If too little of the border is like it, the
    background is not smooth, and there are none.

    Args:
        difference: (height, width) from the background, in the channel where it is largest.
    """
    edge = border_pixels(*difference.shape)
    border = difference[edge]
    fitting = border[border <= TOLERANCE]
    if len(fitting) < MIN_BORDER_SHARE * len(border):
        return np.zeros_like(edge)
    # A clean background shows also a subject of nearly its colour; a noisy one needs all of the tolerance.
    alike = difference <= (NOISE_MARGIN * np.quantile(fitting, 0.95)).clip(MIN_TOLERANCE, TOLERANCE)
    regions, count = ndimage.label(alike, ALL_NEIGHBOURS)
    outside = np.zeros(count + 1, dtype=bool)
    outside[regions[edge]] = True
    outside[0] = False
    return outside[regions]


def subject_pixels(image: Image) -> tuple[Pixels, bool]:
    """The subject of an image, (height, width), and whether it can be trusted.

    It can if the background is smooth, and the subject is there, does not fill the frame and is hardly cut by it.
    """
    background = background_pixels(np.abs(image - smooth_background(image)).max(-1))
    low, high = BACKGROUND_SHARES
    cut = (~background[border_pixels(*background.shape)]).mean()
    return ~background, bool(low < background.mean() < high and cut <= MAX_CUT_SHARE)
