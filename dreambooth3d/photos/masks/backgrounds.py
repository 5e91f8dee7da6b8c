"""How a subject before a smooth background is told from it, without a network."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from dreambooth3d.images import antialiased, from_pil
from dreambooth3d.masks import FINE_SIZE, MIN_TOLERANCE, TOLERANCE, border_pixels, smooth_background, subject_masks
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
    square = from_pil(Image.fromarray(pad_to_square(photo.pixels)))
    image = antialiased(square[None], FINE_SIZE)
    masks, trusted = subject_masks(image)
    if bool(masks.all()) or not bool(masks.any()):
        return None
    mask = _with_holes(image, masks[0])
    return PhotoMask(_as_photo(_with_edges(image, mask), photo), _confidence(image, mask), bool(trusted))


def _with_holes(image: Tensor, mask: Tensor) -> Tensor:
    """The mask of an image (1, 3, height, width) without what the subject encloses and the background looks through.

    Only large holes of exactly the background's colour, as below a chair: smaller ones may be the subject's paint.
    """
    alike = (image - smooth_background(image))[0].abs().amax(0) <= MIN_TOLERANCE
    core = ndimage.binary_opening((alike & mask).numpy(), iterations=HOLE_RADIUS)
    labels, count = ndimage.label(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= HOLE_SHARE * float(mask.sum())
    large[0] = False
    # Opening has rounded the corners off: they grow back inside what is alike.
    holes = ndimage.binary_dilation(large[labels], iterations=2 * HOLE_RADIUS, mask=(alike & mask).numpy())
    return mask & ~torch.from_numpy(holes)


def _with_edges(image: Tensor, mask: Tensor) -> Tensor:
    """(height, width) in [0, 1]: which share of each pixel of an image (1, 3, height, width) the subject covers.

    A pixel on the outline is a mixture of what lies behind and of the subject's colour just inside.
    """
    inside = mask & ~_grown(~mask, 1)
    weight = avg_pool2d(inside[None, None].float(), 2 * EDGE_REACH + 1, 1, EDGE_REACH)
    behind = smooth_background(image)
    near = avg_pool2d(image * inside, 2 * EDGE_REACH + 1, 1, EDGE_REACH) / weight.clamp(min=1e-6)
    contrast = near - behind
    share = ((image - behind) * contrast).sum(1) / contrast.square().sum(1).clamp(min=1e-6)
    known = weight[0, 0] > 0
    return torch.where(mask & ~inside & known, share[0].clamp(0, 1), mask.float())


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """A bool mask (height, width) grown by some pixels."""
    return max_pool2d(mask[None, None].float(), 2 * pixels + 1, 1, pixels)[0, 0] > 0.5


def _as_photo(mask: Tensor, photo: SourcePhoto) -> Mask:
    """The mask of a padded photo, cut to the photo."""
    height, width = photo.pixels.shape[:2]
    side = max(height, width)
    own = torch.nn.functional.interpolate(
        mask[None, None], size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )[0, 0]
    return np.ascontiguousarray((own.clamp(0, 1) * 255).round().to(torch.uint8).numpy()[frame_in_square(height, width)])


def _confidence(image: Tensor, mask: Tensor) -> float:
    """In [0, 1]: how much of the border is background as fitted, times the share of the mask that is no specks."""
    edge = border_pixels(image.shape[-2], image.shape[-1])
    fitting = (image - smooth_background(image))[0].abs().amax(0)[edge] <= TOLERANCE
    labels, _ = ndimage.label(mask.numpy())
    pieces = np.bincount(labels.ravel())[1:] / int(mask.sum())
    return float(fitting.float().mean()) * float(pieces[pieces >= SPECK_SHARE].sum())
