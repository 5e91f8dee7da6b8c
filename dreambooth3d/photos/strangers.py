"""Photos of another subject among those of a set: the colours inside their masks are not those of the others'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.cluster.hierarchy import fcluster, linkage
from skimage.color import rgb2lab

from dreambooth3d.photos.masks.source import Mask

LEVELS = 12
CHROMA = 60.0
"""Largest a* and b* that are told apart."""
LIGHTNESS_SHARE = 0.3
"""Cells along lightness in terms of those along a* and b*: light and shade change from photo to photo."""
BLUR = 1.5
INSIDE = 230
"""Mask from which a pixel is the subject's alone."""
SIDE_PX = 128
ALIKE = 0.52
"""Share of two photos' colours that are the same, from which they may show one subject. Of 40 sets of one subject each,
and of four photos of theirs, no photo had less in common with all others (0.53 is the least, of an avocado that is
green outside and yellow where it is cut, and of a wrong mask); 69 of 92 mixtures of two had."""
MIN_PIXELS = 50


def strangers(images: Sequence[NDArray[np.uint8]], masks: Sequence[Mask]) -> list[int]:
    """Places of the photos that do not belong to the largest group; empty where all may show one subject.

    Photos are chained: one belongs to the others if it is like any of them, since a subject's sides differ. Where two
    groups are of one size, the later one is of strangers. Photos without a mask are left out.

    Args:
        images: uint8 (height, width, 3) each.
        masks: one for each image, of its size.
    """
    found = [colour_shares(*each) for each in zip(images, masks, strict=True)]
    colors = {index: each for index, each in enumerate(found) if each is not None}
    if len(colors) < 2:
        return []
    shares = np.stack([each.ravel() for each in colors.values()])
    apart = [1 - np.minimum(shares[row], shares[row + 1 :]).sum(1) for row in range(len(shares) - 1)]
    groups = fcluster(linkage(np.concatenate(apart), "single"), 1 - ALIKE, "distance").tolist()
    most, _ = Counter(groups).most_common(1)[0]
    return [index for index, group in zip(colors, groups, strict=True) if group != most]


def colour_shares(image: NDArray[np.uint8], mask: Mask) -> NDArray[np.float64] | None:
    """(cells,) shares of the colours inside a mask in CIELAB, blurred; None of a mask that shows too little."""
    size = (SIDE_PX, SIDE_PX)
    inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX)) >= INSIDE
    if inside.sum() < MIN_PIXELS:
        return None
    lab = rgb2lab(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)))[inside]
    shares = [lab[:, 0] / 100 * LIGHTNESS_SHARE, *((lab[:, axis] + CHROMA) / (2 * CHROMA) for axis in (1, 2))]
    cells = (np.stack(shares, axis=1) * LEVELS).astype(np.intp).clip(0, LEVELS - 1)
    counts = np.zeros((LEVELS,) * 3)
    np.add.at(counts, tuple(cells.T), 1.0)
    blurred = ndimage.gaussian_filter(counts, BLUR)
    return blurred / blurred.sum()
