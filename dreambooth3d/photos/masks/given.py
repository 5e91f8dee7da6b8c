"""Masks that the user brings: a photo's transparency, or a file beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.decoding import UnreadableError, opened, orientation_of, reduced, strips, upright, upright_size
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
        PhotoSetError: the mask cannot be read, is no PNG file, has another size than its photo, or is empty or full.
    """
    path = mask_file(photo)
    if path is None:
        return None
    shown = shown_path(path)
    mask, (width, height) = _decode(path)
    if (width, height) != size:
        raise PhotoSetError(
            f"{shown}: the mask has {width} x {height} pixels, its photo {printable(photo.name)} "
            f"{size[0]} x {size[1]}. Export it at the photo's size, or remove it."
        )
    if not says_something(mask):
        what = "full (all of the photo is the subject)" if share(mask) > 0.5 else "empty (nothing is the subject)"
        raise PhotoSetError(f"{shown}: the mask is {what}. Paint the subject white on black, or remove it.")
    return mask


def _decode(path: Path) -> tuple[Mask, tuple[int, int]]:
    """An encoded mask, upright, reduced where it is large, and its width and height in pixels."""
    try:
        with opened(path) as image:
            if image.format != "PNG":
                raise UnreadableError(f"is a {image.format} file, but masks are PNG files. Export it as such")
            mask = upright(reduced(image, _whole_range(image)), orientation_of(image))
            size = upright_size(image)
    except UnreadableError as error:
        raise PhotoSetError(f"{shown_path(path)}: {error}.") from None
    except Exception as error:  # PIL's decoders raise many kinds of errors on damaged files
        reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):  # whose text names an object of Python
            reason = "damaged at its start"
        raise PhotoSetError(
            f"{shown_path(path)}: the mask cannot be read ({reason}). Export it again, or remove it."
        ) from None
    return np.asarray(mask), size


def _whole_range(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """How a strip becomes a mask: its transparency if there is any, else its grey; of two values 0 and 255."""
    greys, alphas = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    for _, strip in strips(image):
        greys += strip.convert("L").histogram()
        if strip.mode == "RGBA":
            alphas += strip.getchannel("A").histogram()
    transparent = alphas[:OPAQUE].any()
    values = np.flatnonzero(alphas if transparent else greys)
    levels = [255 * (value == values[-1]) for value in range(256)] if len(values) == 2 else list(range(256))

    def mask_of(strip: Image.Image) -> Image.Image:
        return (strip.getchannel("A") if transparent else strip.convert("L")).point([int(level) for level in levels])

    return mask_of
