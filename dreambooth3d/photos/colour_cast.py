"""Photos in another light than the others of their set: the subject's colours are tinted there.

A tint multiplies red, green and blue by a gain each, and so moves the histogram of log(red/green) and log(blue/green).
How far is told by the shift under which two photos' histograms of the subject fit best, as in Barron's "Convolutional
Color Constancy" (2015). A tint that all photos share is not seen: the asset simply has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from dreambooth3d.photos.masks.source import Mask
from dreambooth3d.photos.strangers import INSIDE, MIN_PIXELS

BIN = 0.04
"""Width of a cell, in natural logarithms."""
REACH = 2.4
"""Largest ratio's logarithm that is told apart."""
BLUR = 2.5
MAX_SHIFT = 0.8
LEVELS = (0.01, 0.96)
"""Linear light below which a channel is noise, and above which it is clipped."""
MIN_FIT = 0.6
"""Overlap (Bhattacharyya coefficient) at the best shift below which the colours are too different to compare."""
MIN_GAIN = 0.06
"""By how much the best shift must fit better than none."""
MIN_CAST = 0.18
"""Logarithm of the ratio of two channels' gains from which a photo counts as tinted: a factor of 1.2. Of 100 photos of
20 toybox subjects one counted so; of 120 in which one was tinted (gains of 1.25, 1, 0.75 or 0.85, 1, 1.3) about 70 were
told: vivid colours hide it."""
DIRECTIONS = {
    0: "redder", 45: "pinker", 90: "bluer", 135: "bluer", 180: "greener and bluer", -135: "greener",
    -90: "yellower", -45: "yellower",
}  # fmt: skip


def colour_casts(images: Sequence[NDArray[np.uint8]], masks: Sequence[Mask]) -> NDArray[np.float64]:
    """(n, 2): by how much log(red/green) and log(blue/green) of the subject's linear light are above the others'.

    0 where it cannot be told: of photos without a mask, and of those in which the subject shows other colours.

    Args:
        images: uint8 (height, width, 3) each.
        masks: one for each image, of its size.
    """
    found = [_histogram(*each) for each in zip(images, masks, strict=True)]
    known = {index: each for index, each in enumerate(found) if each is not None}
    shifts = np.full((len(images), len(images), 2), np.nan)
    for one, other in combinations(known, 2):
        shift = _shift(known[one], known[other])
        shifts[one, other], shifts[other, one] = shift, -shift
    casts = np.zeros((len(images), 2))
    for index in known:
        against = shifts[index][~np.isnan(shifts[index, :, 0])]
        # Of two that differ nobody can say which one is tinted.
        if len(against) >= 2:
            casts[index] = np.median(against, axis=0)
    return casts


def tint(cast: NDArray[np.float64]) -> str | None:
    """What a photo's cast makes it, such as `yellower`; None where it is small."""
    if np.linalg.norm(cast) < MIN_CAST:
        return None
    angle = np.degrees(np.arctan2(cast[1], cast[0]))
    return DIRECTIONS[min(DIRECTIONS, key=lambda middle: abs((angle - middle + 180) % 360 - 180))]


def _histogram(image: NDArray[np.uint8], mask: Mask) -> NDArray[np.float64] | None:
    """(cells, cells) square roots of the shares of the subject's chromaticities; None where it shows too few."""
    coded = image[mask >= INSIDE] / 255.0
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    light = light[((light > LEVELS[0]) & (light < LEVELS[1])).all(axis=1)]
    if len(light) < MIN_PIXELS:
        return None
    logarithm = np.log(light)
    ratios = logarithm[:, [0, 2]] - logarithm[:, [1]]
    edges = np.arange(-REACH, REACH + BIN / 2, BIN)
    counts, _, _ = np.histogram2d(*ratios.clip(-REACH, REACH - BIN / 2).T, bins=(edges, edges))
    blurred = ndimage.gaussian_filter(counts, BLUR)
    return np.sqrt(blurred / blurred.sum())


def _shift(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) shift of one histogram against the other; 0 where none fits clearly better, NaN where none fits."""
    fit = fftconvolve(one, other[::-1, ::-1])
    middle, most = len(one) - 1, round(MAX_SHIFT / BIN)
    near = fit[middle - most : middle + most + 1, middle - most : middle + most + 1]
    best = np.array(np.unravel_index(near.argmax(), near.shape)) - most
    peak, still = near.max(), fit[middle, middle]
    if peak < MIN_FIT:
        return np.full(2, np.nan)
    return best * BIN if peak - still >= MIN_GAIN else np.zeros(2)
