"""What masks of single photos show beside the subject: things of colours that the other photos' subjects lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab

from dreambooth3d.photos.masks.source import HALF, Mask, SourcePhoto

LEVELS = 10
"""Cells of the histogram along each axis of CIELAB."""
CHROMA = 60.0
"""Largest a* and b* that are told apart."""
BLUR = 0.7
RARE = 1.0e-5
"""Share of the pixels below which a colour counts as seen nowhere else."""
STRANGE = 0.3
FAMILIAR = 0.6
"""Mean odds below which a piece of a mask is something else, where another piece's are at least these."""
SPECK_SHARE = 0.02
MIN_OTHERS = 2


@dataclass(frozen=True)
class SharedMask:
    """A mask without what is not shared.

    Attributes:
        mask: the pieces that remain.
        shared: mean odds in [0, 1] that its colours are a subject's in other photos and no background's.
    """

    mask: Mask
    shared: float


def keep_shared(photos: Sequence[SourcePhoto], masks: Sequence[Mask]) -> list[SharedMask]:
    """The masks of one subject without pieces that only one photo has, as a cup beside it.

    Pieces are told by their colours alone, so that they must lie apart from the subject. With too few photos nothing is
    told, and all is shared.
    """
    if len(photos) <= MIN_OTHERS:
        return [SharedMask(mask, 1.0) for mask in masks]
    cells = [_cells(photo.pixels) for photo in photos]
    inside = [_histogram(cell[mask >= HALF]) for cell, mask in zip(cells, masks, strict=True)]
    outside = [_histogram(cell[mask < HALF]) for cell, mask in zip(cells, masks, strict=True)]
    everywhere = np.mean(outside, axis=0)
    found = []
    for index, (cell, mask) in enumerate(zip(cells, masks, strict=True)):
        subject = np.mean([part for other, part in enumerate(inside) if other != index], axis=0)
        background = (everywhere + outside[index]) / 2
        odds = (subject / (subject + background + RARE))[cell]
        kept = _without_strangers(mask, odds)
        found.append(SharedMask(kept, float(odds[kept >= HALF].mean())))
    return found


def _cells(pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """(height, width) the histogram's cell of each pixel."""
    lab = rgb2lab(pixels)
    shares = np.stack([lab[..., 0] / 100, *((lab[..., axis] + CHROMA) / (2 * CHROMA) for axis in (1, 2))], axis=-1)
    lightness, red, yellow = np.moveaxis((shares * LEVELS).astype(np.intp).clip(0, LEVELS - 1), -1, 0)
    return (lightness * LEVELS + red) * LEVELS + yellow


def _histogram(cells: NDArray[np.intp]) -> NDArray[np.float64]:
    """(cells,) share of each cell, blurred."""
    counts = np.bincount(cells, minlength=LEVELS**3).astype(np.float64).reshape(LEVELS, LEVELS, LEVELS)
    return (ndimage.gaussian_filter(counts, BLUR) / max(1.0, counts.sum())).ravel()


def _without_strangers(mask: Mask, odds: NDArray[np.float64]) -> Mask:
    """The mask without its pieces of strange colours, where another one is familiar."""
    labels, count = ndimage.label(mask >= HALF)
    if count < 2:
        return mask
    numbers = np.arange(1, count + 1)
    sizes, means = np.bincount(labels.ravel())[1:], ndimage.mean(odds, labels, numbers)
    large = sizes >= SPECK_SHARE * sizes.sum()
    if not (means[large] >= FAMILIAR).any():
        return mask
    strange = numbers[(means < STRANGE) & large]
    # With the soft rim around them, which no label covers.
    rim = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    nearest = labels[tuple(rim)]
    return np.where(np.isin(nearest, strange), 0, mask).astype(np.uint8)
