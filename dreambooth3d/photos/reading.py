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
from dreambooth3d.photos.quality import Photo
from dreambooth3d.photos.subject import shown_path


@dataclass(frozen=True)
class RawPhoto:
    """One photo as it was read.

    Attributes:
        file: name of the file, as `naming.printable` shows it.
        size_bytes: size of the file.
        sha256: of the file.
        pixels: uint8 (height, width, 3), upright (EXIF orientation applied), transparency on white.
    """

    file: str
    size_bytes: int
    sha256: str
    pixels: Photo


def read_photo(path: Path) -> RawPhoto:
    """Read one photo.

    Raises:
        PhotoSetError: the file is empty, or is not a readable image; names it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PhotoSetError(
            f"{shown_path(path)}: cannot be opened ({error.strerror}). Correct that, or remove it."
        ) from None
    if not content:
        raise PhotoSetError(f"{shown_path(path)}: the photo is empty (0 bytes). Copy it again, or remove it.")
    return RawPhoto(printable(path.name), len(content), hashlib.sha256(content).hexdigest(), _decode(content, path))


def _decode(content: bytes, path: Path) -> Photo:
    """Pixels of an encoded image."""
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


def _to_rgb(image: Image.Image) -> Photo:
    """uint8 (height, width, 3); 16-bit grey is scaled, transparency becomes white."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / 257
        return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
