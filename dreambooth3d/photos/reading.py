"""Reading photos from disk: upright, without transparency, or a clear error that names the file."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.masks.given import read_mask, usable_alpha
from dreambooth3d.photos.masks.source import HALF, Mask
from dreambooth3d.photos.quality import Photo, luminance
from dreambooth3d.photos.subject import shown_path

PLAIN = (255, 128, 64)
"""Grey levels for what is transparent; white where the subject has no more of it than of the others."""
NEAR = 40


@dataclass(frozen=True)
class RawPhoto:
    """One photo as it was read.

    Attributes:
        file: name of the file, as `naming.printable` shows it.
        size_bytes: size of the file.
        sha256: of the file.
        pixels: uint8 (height, width, 3), upright (EXIF orientation applied), what is transparent on a plain grey, or
            white, that the subject has little of.
        alpha: uint8 (height, width) transparency, None where it is opaque throughout.
        mask: uint8 (height, width) of the mask in a file beside it, or None.
        opaque: there is transparency, and it is opaque throughout.
    """

    file: str
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
        content = path.read_bytes()
    except OSError as error:
        raise PhotoSetError(
            f"{shown_path(path)}: cannot be opened ({error.strerror}). Correct that, or remove it."
        ) from None
    if not content:
        raise PhotoSetError(f"{shown_path(path)}: the photo is empty (0 bytes). Copy it again, or remove it.")
    pixels, transparency = _decode(content, path)
    height, width = pixels.shape[:2]
    mask, alpha = read_mask(path, (width, height)), None
    if transparency is not None:
        alpha = usable_alpha(transparency, path)
        pixels = _before_plain(pixels, transparency)
    opaque = transparency is not None and alpha is None
    sha256 = hashlib.sha256(content).hexdigest()
    return RawPhoto(printable(path.name), len(content), sha256, pixels, alpha, mask, opaque)


def _decode(content: bytes, path: Path) -> tuple[Photo, Mask | None]:
    """Pixels of an encoded image, and its transparency."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PhotoSetError(f"{shown_path(path)}: has too many pixels. Save it with at most 80 megapixels.") from None
    # PIL's decoders raise many kinds of errors on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image, or damaged at its start"
        raise PhotoSetError(
            f"{shown_path(path)}: the photo cannot be read ({reason}). Copy or export it again, or remove it."
        ) from None


def _to_rgb(image: Image.Image) -> tuple[Photo, Mask | None]:
    """uint8 (height, width, 3) and, where there is transparency, (height, width); 16-bit grey is scaled."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / 257
        return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=-1), None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return np.asarray(image.convert("RGB")), np.asarray(image.getchannel("A"))
    return np.asarray(image.convert("RGB")), None


def _before_plain(pixels: Photo, alpha: Mask) -> Photo:
    """The photo with what is transparent on that grey level of `PLAIN` of which the subject has the least."""
    solid = luminance(pixels[alpha >= HALF]) * 255
    near = [float((np.abs(solid - level) < NEAR).mean()) for level in PLAIN]
    level, share = PLAIN[int(np.argmin(near))], alpha[..., None] / 255.0
    return (pixels * share + level * (1 - share)).round().astype(np.uint8)
