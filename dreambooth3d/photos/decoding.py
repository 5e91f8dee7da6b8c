"""Decoding of photos: by what they contain and not by their names, in a bounded amount of memory, as sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

_DECODERS = {"JPEG": ("JPEG", "MPO"), "PNG": ("PNG",), "WebP": ("WEBP",), "TIFF": ("TIFF",), "HEIC": ("HEIF",),
             "AVIF": ("AVIF",)}  # fmt: skip
READABLE = "JPEG, PNG, WebP, HEIC, AVIF or TIFF"
MAX_MEGAPIXELS = {"JPEG": 250, "PNG": 100, "WebP": 30, "TIFF": 50, "HEIC": 50, "AVIF": 50}
"""What fits into 500 MiB: a baseline JPEG is decoded at a fraction of its size, the others in full."""
MAX_PROGRESSIVE_MEGAPIXELS = 80
"""A progressive JPEG's coefficients are all kept while it is decoded."""
KEPT_SIDE_PX = 1024
"""Larger photos are reduced by a whole factor while they are decoded, to a longer side of at least this."""
_STRIP_PIXELS = 2**22
_HEAD_BYTES = 64
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"),
    (b"%!PS", "PostScript"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"%PDF", "PDF"), (b"8BPS", "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"), (b"<svg", "SVG"), (b"<?xml", "XML"), (b"<!DOCTYPE", "HTML"), (b"<html", "HTML"),
    (b"PK\x03\x04", "ZIP"), (b"\x76\x2f\x31\x01", "OpenEXR"), (b"#?RADIANCE", "Radiance"), (b"FUJIFILMCCD-RAW", "raw"),
    (b"\x00\x00\x01\x00", "Windows icon"),
)  # fmt: skip
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_DNG_VERSION = 50706
_LYING = 5
"""EXIF orientation from which rows are columns."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_PROFILED = {"L": "GRAY", "RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK"}
"""Colour space of the profiles that fit each mode."""


class UnreadableError(Exception):
    """A photo that cannot be decoded; the message says why and what to do, without naming the file."""


def content_format(head: bytes) -> str | None:
    """The format of a file by its first bytes, as people call it; None where it is none that is known here."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(_TIFF):
        return "raw" if head[8:10] == b"CR" else "TIFF"
    if head[4:8] == b"ftyp":
        brands = (head[8:12], *(head[place : place + 4] for place in range(16, len(head), 4)))
        # Of a file with several brands, mif1 says least.
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        if any(brand in _HEIC_BRANDS for brand in brands):
            return "HEIC"
        return "raw" if brands[0] == b"crx " else "video"
    stripped = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((name for start, name in _SIGNATURES if head.startswith(start) or stripped.startswith(start)), None)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A photo's header; nothing is decoded yet, and no decoder but its own format's looks at the file.

    Raises:
        UnreadableError: it has another format than those of `READABLE`, is damaged at its start, or has too many
            pixels.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        name = content_format(file.read(_HEAD_BYTES))
        if name is None:
            raise UnreadableError("is not an image, or damaged at its start. Copy or export it again, or remove it")
        if name not in _DECODERS:
            raise UnreadableError(f"is a {name} file. Export the photo as {READABLE}, or remove it")
        if name == "HEIC":
            import pi_heif

            pi_heif.register_heif_opener()
        file.seek(0)
        with _checked_by_us(), Image.open(file, formats=_DECODERS[name]) as image:
            _require_size(image, name)
            if name == "TIFF" and _DNG_VERSION in image.getexif():
                raise UnreadableError(f"is a raw file. Export the photo as {READABLE}, or remove it")
            yield image


@contextmanager
def _checked_by_us() -> Iterator[None]:
    """Pillow's limit on pixels is one for all formats; ours are checked right after the header is read."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _require_size(image: Image.Image, name: str) -> None:
    most, kind = MAX_MEGAPIXELS[name], name
    if image.info.get("progressive") or image.info.get("progression"):
        most, kind = MAX_PROGRESSIVE_MEGAPIXELS * 3 // max(3, len(image.getbands())), "progressive JPEG"
    megapixels = image.width * image.height / 1e6
    if megapixels > most:
        raise UnreadableError(f"has {megapixels:.0f} megapixels. Save it with at most {most}, the most of a {kind}")


def decoded(path: Path) -> tuple[Image.Image, tuple[int, int]]:
    """A photo as sRGB, upright, reduced where it is large.

    Of a photo whose longer side has at least twice `KEPT_SIDE_PX` pixels, means over squares of pixels are kept.

    Returns:
        The picture, of mode RGB or RGBA, and width and height of the photo, upright.

    Raises:
        UnreadableError, OSError: see `opened`; also where decoding fails.
    """
    with opened(path) as image:
        orientation, size = orientation_of(image), upright_size(image)
        width, height = image.size
        if image.format in _DECODERS["JPEG"]:
            image.draft(None, _kept_size(width, height))
        small = _to_srgb(reduced(image), image.info.get("icc_profile"))
    return upright(small, orientation), size


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as its EXIF orientation says that it is to be looked at."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where none is noted."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in _UPRIGHT else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the picture as it is to be looked at."""
    width, height = image.size
    return (height, width) if orientation_of(image) >= _LYING else (width, height)


def _kept_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, KEPT_SIDE_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def strips(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """The picture from top to bottom, of 8 bits per channel, so that no second one of full size is in memory.

    Returns:
        Pairs of a strip and its first row divided by `factor`, of which each strip but the last has a multiple of rows.
    """
    width, height = image.size
    rows = factor * max(1, _STRIP_PIXELS // (width * factor))
    for top in range(0, height, rows):
        yield top // factor, _eight_bit(image.crop((0, top, width, min(height, top + rows))))


def reduced(image: Image.Image, of: Callable[[Image.Image], Image.Image] = lambda strip: strip) -> Image.Image:
    """Means over squares of pixels, of as many as leave the longer side at least `KEPT_SIDE_PX`.

    Args:
        image: of any size.
        of: what the means are of, made of each strip.
    """
    factor = max(1, max(image.size) // KEPT_SIDE_PX)
    whole: Image.Image | None = None
    for row, strip in strips(image, factor):
        part = of(strip)
        part = part if factor == 1 else part.reduce(factor)
        whole = whole or Image.new(part.mode, (part.width, -(-image.height // factor)))
        whole.paste(part, (0, row))
    assert whole is not None
    return whole


def _eight_bit(image: Image.Image) -> Image.Image:
    """Of mode L, RGB, RGBA or CMYK; 16-bit grey is scaled."""
    if image.mode == "F":
        raise UnreadableError("holds floating-point numbers, whose scale is not known. Export it as JPEG or PNG")
    if image.mode.startswith("I"):
        return Image.fromarray(((np.asarray(image).clip(0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.copy() if image.mode in _PROFILED else image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB, of mode RGB or RGBA; without a usable profile its colours are taken to be that already."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    if not profile:
        return image.convert(mode)
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        fits = getattr(given.profile, "xcolor_space", None) == _PROFILED[image.mode]
        if not fits or "srgb" in ImageCms.getProfileDescription(given).lower():
            return image.convert(mode)
        colours = image.convert("RGB") if mode == "RGBA" else image
        converted = ImageCms.profileToProfile(colours, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    # A profile is optional: one that cannot be read says nothing.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert(mode)
    assert converted is not None
    if mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted
