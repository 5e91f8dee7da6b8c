"""Connected parts of a volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MIN_PART_SHARE = 0.03
"""Of the largest part's cells, below which a part is a floater."""


def large_parts(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A volume without connected parts that are small against the largest one."""
    labels, _ = ndimage.label(inside)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return inside & (sizes >= MIN_PART_SHARE * sizes.max())[labels]
