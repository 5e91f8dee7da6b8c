"""Were all photos taken before the same background? What is behind a subject in all may be learned as its part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.photos.masks.source import Mask
from dreambooth3d.photos.strangers import colour_shares

SAME = 0.7
"""Overlap of colours from which backgrounds count as the same. Of the 20 toybox subjects before random backgrounds the
most alike reach 0.63; before one background, in light that varies by a quarter, they stay above 0.74."""


def background_sameness(images: Sequence[NDArray[np.uint8]], masks: Sequence[Mask]) -> float | None:
    """Overlap in [0, 1] of each photo's background colours with the others', of the photo that is least like them.

    Args:
        images: uint8 (height, width, 3) each.
        masks: one for each image, of its size.

    Returns:
        None of fewer than two photos that show a background.
    """
    found = [colour_shares(image, 255 - mask) for image, mask in zip(images, masks, strict=True)]
    shares = np.array([each.ravel() for each in found if each is not None])
    if len(shares) < 2:
        return None
    overlaps = np.minimum(shares[:, None], shares[None]).sum(axis=-1)
    return float((overlaps.sum(axis=1) - 1).min() / (len(shares) - 1))
