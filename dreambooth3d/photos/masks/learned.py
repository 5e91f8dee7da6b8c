"""Masks by the bundled network, which sees all photos of a set: the subject is what they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dreambooth3d.images import antialiased, from_pil
from dreambooth3d.photos.masks.color_models import sharpen
from dreambooth3d.photos.masks.source import PhotoMask, SourcePhoto, says_something
from dreambooth3d.photos.networks.subject_masks import SubjectMaskNetwork
from dreambooth3d.photos.quality import frame_in_square, pad_to_square

SIZE = 256
"""Pixels per side of the padded photos that the network is given."""
TRUST_FROM = 0.6
"""Confidence from which a mask is a target."""


def learned_masks(photos: Sequence[SourcePhoto], folder: Path) -> list[PhotoMask | None]:
    """A mask of each photo by the network in a folder, None where it sees no subject."""
    squares = [from_pil(Image.fromarray(pad_to_square(photo.pixels))) for photo in photos]
    images = torch.cat([antialiased(square[None], SIZE) for square in squares])
    frame = torch.stack([_frame(photo) for photo in photos])
    first, confidence = SubjectMaskNetwork.load(folder).masks(images, frame)
    found = sharpen(images, first) * frame
    return [_mask(*each) for each in zip(photos, found, confidence.tolist(), strict=True)]


def _frame(photo: SourcePhoto) -> torch.Tensor:
    """(size, size) 1 inside the photo, 0 in the padding."""
    height, width = photo.pixels.shape[:2]
    frame = torch.zeros(max(height, width), max(height, width))
    frame[frame_in_square(height, width)] = 1.0
    return torch.nn.functional.interpolate(frame[None, None], size=(SIZE, SIZE), mode="area")[0, 0]


def _mask(photo: SourcePhoto, found: torch.Tensor, confidence: float) -> PhotoMask | None:
    """The mask of a padded photo, cut to the photo."""
    height, width = photo.pixels.shape[:2]
    shape = (max(height, width),) * 2
    large = torch.nn.functional.interpolate(
        found[None, None], size=shape, mode="bilinear", antialias=True, align_corners=False
    )[0, 0]
    mask = (large.clamp(0, 1) * 255).round().to(torch.uint8).numpy()[frame_in_square(height, width)]
    return PhotoMask(np.ascontiguousarray(mask), confidence, confidence >= TRUST_FROM) if says_something(mask) else None
