"""Reading photos from disk: upright, without transparency, or a clear error that names the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dreambooth3d.digests import sha256_file
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.decoding import UnreadableError, decoded
from dreambooth3d.photos.masks.given import read_mask, usable_alpha
from dreambooth3d.photos.masks.source import HALF, Mask
from dreambooth3d.photos.quality import Photo, luminance, shrink
from dreambooth3d.photos.subject import shown_path

MAX_SIDE_PX = 512
"""Larger photos are downscaled before they travel: no base model here sees more."""
PLAIN = (255, 128, 64)
"""Grey levels for what is transparent; white where the subject has no more of it than of the others."""
NEAR = 40


@dataclass(frozen=True)
class RawPhoto:
    """One photo as it was read.

    Attributes:
        file: name of the file, as `naming.printable` shows it.
        width, height: of the photo in pixels, upright (EXIF orientation applied).
        size_bytes: size of the file.
        sha256: of the file.
        pixels: uint8 (rows, columns, 3), the longer side at most `MAX_SIDE_PX`, upright, sRGB, what is transparent on
            a plain grey, or white, that the subject has little of.
        alpha: uint8 (rows, columns) transparency, None where it is opaque throughout.
        mask: uint8 (rows, columns) of the mask in a file beside it, or None.
        opaque: there is transparency, and it is opaque throughout.
    """

    file: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    pixels: Photo
    alpha: Mask | None = None
    mask: Mask | None = None
    opaque: bool = False


def read_photo(path: Path) -> RawPhoto:
    """Read one photo.

    Raises:
        PhotoSetError: the file is empty, or is not a readable image, or is transparent throughout, or the mask beside
            it cannot be used; names it.
    """
    try:
        if not path.stat().st_size:
            raise PhotoSetError(f"{shown_path(path)}: the photo is empty (0 bytes). Copy it again, or remove it.")
        size_bytes, sha256 = path.stat().st_size, sha256_file(path)
    except OSError as error:
        raise PhotoSetError(
            f"{shown_path(path)}: cannot be opened ({error.strerror}). Correct that, or remove it."
        ) from None
    image, size = _decode(path)
    mask, alpha = read_mask(path, size), None
    pixels = np.asarray(image.convert("RGB"))
    if image.mode == "RGBA":
        transparency = np.asarray(image.getchannel("A"))
        alpha = usable_alpha(transparency, path)
        pixels = _before_plain(pixels, transparency)
    opaque = image.mode == "RGBA" and alpha is None
    alpha, mask = (None if each is None else shrink(each, MAX_SIDE_PX) for each in (alpha, mask))
    pixels = shrink(pixels, MAX_SIDE_PX)
    return RawPhoto(printable(path.name), *size, size_bytes, sha256, pixels, alpha, mask, opaque)


def _decode(path: Path) -> tuple[Image.Image, tuple[int, int]]:
    try:
        return decoded(path)
    except UnreadableError as error:
        raise PhotoSetError(f"{shown_path(path)}: {error}.") from None
    # PIL's decoders raise many kinds of errors on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "damaged at its start"
        raise PhotoSetError(
            f"{shown_path(path)}: the photo cannot be read ({reason}). Copy or export it again, or remove it."
        ) from None


def _before_plain(pixels: Photo, alpha: Mask) -> Photo:
    """The photo with what is transparent on that grey level of `PLAIN` of which the subject has the least."""
    solid = luminance(pixels[alpha >= HALF]) * 255
    near = [float((np.abs(solid - level) < NEAR).mean()) for level in PLAIN]
    level, share = PLAIN[int(np.argmin(near))], alpha[..., None] / 255.0
    return (pixels * share + level * (1 - share)).round().astype(np.uint8)
