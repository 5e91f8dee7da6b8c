"""How a subject before a smooth background is told from it, without a network, and without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dreambooth3d import backdrops
from dreambooth3d.backdrops import ALL_NEIGHBOURS, FINE_SIZE, MIN_TOLERANCE, TOLERANCE, Pixels, smooth_background
from dreambooth3d.photos.masks.source import Mask, PhotoMask, SourcePhoto
from dreambooth3d.photos.quality import frame_in_square, pad_to_square

HOLE_RADIUS = 2
HOLE_SHARE = 0.03
"""Share of the subject from which a hole is one."""
EDGE_REACH = 2
"""Pixels within which the subject's colour just inside the outline is taken."""
SPECK_SHARE = 0.02
"""Share of a mask below which a piece of it is a speck."""


def mask_before_smooth(photo: SourcePhoto) -> PhotoMask | None:
    """The mask of a photo, None where the background cannot be told: at one size for all, whatever theirs is."""
    square = pad_to_square(photo.pixels).astype(np.float32) / 255
    image = np.stack([_resized(channel, FINE_SIZE) for channel in np.moveaxis(square, -1, 0)], axis=-1).clip(0, 1)
    mask, trusted = backdrops.subject_pixels(image)
    if mask.all() or not mask.any():
        return None
    behind = smooth_background(image)
    mask = _with_holes(image, behind, mask)
    return PhotoMask(_as_photo(_with_edges(image, behind, mask), photo), _confidence(image, behind, mask), trusted)


def _resized(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Values (n, n) at (side, side), antialiased as torch does it, whose filter is Pillow's."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize((side, side), Image.Resampling.BILINEAR))


def _with_holes(image: backdrops.Image, behind: backdrops.Image, mask: Pixels) -> Pixels:
    """The mask of an image without what the subject encloses and the background looks through.

    Only large holes of exactly the background's colour, as below a chair: smaller ones may be the subject's paint.
    """
    alike = (np.abs(image - behind).max(-1) <= MIN_TOLERANCE) & mask
    core = ndimage.binary_opening(alike, iterations=HOLE_RADIUS)
    labels, count = ndimage.label(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= HOLE_SHARE * float(mask.sum())
    large[0] = False
    # Opening has rounded the corners off: they grow back inside what is alike.
    return mask & ~ndimage.binary_dilation(large[labels], iterations=2 * HOLE_RADIUS, mask=alike)


def _with_edges(image: backdrops.Image, behind: backdrops.Image, mask: Pixels) -> NDArray[np.float32]:
    """(height, width) in [0, 1]: which share of each pixel of an image the subject covers.

    A pixel on the outline is a mixture of what lies behind and of the subject's colour just inside.
    """
    inside = mask & ~ndimage.binary_dilation(~mask, ALL_NEIGHBOURS)
    weight = _window_means(inside.astype(np.float32))
    near = np.stack([_window_means(image[..., channel] * inside) for channel in range(3)], axis=-1)
    contrast = near / weight[..., None].clip(1e-6) - behind
    share = ((image - behind) * contrast).sum(-1) / (contrast**2).sum(-1).clip(1e-6)
    return np.where(mask & ~inside & (weight > 0), share.clip(0, 1), mask).astype(np.float32)


def _window_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(height, width) means in square windows of values that are 0 beyond the frame: sums of shifted images."""
    height, width = values.shape
    padded, size = np.pad(values, EDGE_REACH), 2 * EDGE_REACH + 1
    parts = [padded[row : row + height, column : column + width] for row in range(size) for column in range(size)]
    total = np.zeros_like(values)
    for part in parts:
        total += part
    return total / np.float32(size**2)


def _as_photo(mask: NDArray[np.float32], photo: SourcePhoto) -> Mask:
    """The mask of a padded photo, cut to the photo."""
    height, width = photo.pixels.shape[:2]
    own = (_resized(mask, max(height, width)).clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(own[frame_in_square(height, width)])


def _confidence(image: backdrops.Image, behind: backdrops.Image, mask: Pixels) -> float:
    """In [0, 1]: how much of the border is background as fitted, times the share of the mask that is no specks."""
    edge = backdrops.border_pixels(*mask.shape)
    fitting = np.abs(image - behind).max(-1)[edge] <= TOLERANCE
    labels, _ = ndimage.label(mask)
    pieces = np.bincount(labels.ravel())[1:] / int(mask.sum())
    return float(fitting.mean(dtype=np.float32)) * float(pieces[pieces >= SPECK_SHARE].sum())
