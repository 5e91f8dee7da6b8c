"""Masks that the user brings: a photo's transparency, or a file beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.masks.source import Mask, PhotoMask, SourcePhoto, says_something, share
from dreambooth3d.photos.subject import mask_file, shown_path

OPAQUE = 250
"""Transparency from which a pixel counts as opaque: encoders with losses do not keep it exactly."""


@dataclass(frozen=True)
class Alpha:
    """Transparency."""

    name: str = "alpha"

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """The photos' transparency, where there is any."""
        return [None if photo.alpha is None else PhotoMask(photo.alpha, 1.0, trusted=True) for photo in photos]


@dataclass(frozen=True)
class Files:
    """`NAME_mask.png` beside the photos, or a file of their names in `masks/`."""

    name: str = "files"

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """The masks in files, where there are any."""
        return [None if photo.given is None else PhotoMask(photo.given, 1.0, trusted=True) for photo in photos]


def usable_alpha(alpha: Mask, path: Path) -> Mask | None:
    """A photo's transparency; None where it is opaque throughout, which says nothing.

    Raises:
        PhotoSetError: it is transparent throughout.
    """
    if alpha.min() >= OPAQUE:
        return None
    if not says_something(alpha) and share(alpha) < 0.5:
        raise PhotoSetError(
            f"{shown_path(path)}: is transparent throughout, and shows no subject. Export it again, or remove it."
        )
    return alpha if says_something(alpha) else None


def read_mask(photo: Path, size: tuple[int, int]) -> Mask | None:
    """The mask in a file beside a photo, None without one.

    Grey values are shares of the pixel; of a picture with transparency that is what counts, and of one with two values
    the larger one is the subject.

    Args:
        photo: its file.
        size: width and height of the photo, upright.

    Raises:
        PhotoSetError: the mask cannot be read, has another size than its photo, or is empty or full.
    """
    path = mask_file(photo)
    if path is None:
        return None
    shown = shown_path(path)
    mask = _decode(path)
    if mask.shape != size[::-1]:
        raise PhotoSetError(
            f"{shown}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its photo {printable(photo.name)} "
            f"{size[0]} x {size[1]}. Export it at the photo's size, or remove it."
        )
    if not says_something(mask):
        what = "full (all of the photo is the subject)" if share(mask) > 0.5 else "empty (nothing is the subject)"
        raise PhotoSetError(f"{shown}: the mask is {what}. Paint the subject white on black, or remove it.")
    return mask


def _decode(path: Path) -> Mask:
    """(height, width) of an encoded mask, upright."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            image = ImageOps.exif_transpose(opened)
            alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
            wide = np.asarray(image) if image.mode.startswith("I") else None
            grey = np.asarray(image.convert("L")) if wide is None else (wide.astype(np.float64) / 257).clip(0, 255)
    except Exception as error:  # PIL's decoders raise many kinds of errors on damaged files
        reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image, or damaged at its start"
        raise PhotoSetError(
            f"{shown_path(path)}: the mask cannot be read ({reason}). Export it again, or remove it."
        ) from None
    mask = alpha if alpha is not None and alpha.min() < OPAQUE else grey.round().astype(np.uint8)
    values = np.unique(mask)
    return np.where(mask == values[-1], 255, 0).astype(np.uint8) if len(values) == 2 else mask
