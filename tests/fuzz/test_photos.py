"""Photos, masks and captions: mutated files of every format that is read, and pictures of odd kinds and sizes."""

from __future__ import annotations

import base64
import functools
import io
import shutil
import struct
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.photos.cameras.focal import focal_lengths
from dreambooth3d.photos.captions import read_caption
from dreambooth3d.photos.check import inspect_folder
from dreambooth3d.photos.reading import read_photo
from dreambooth3d.photos.subject import SubjectInfo
from tests.fuzz.inputs import damaged
from tests.fuzz.outcomes import tried, tries
from tests.photos.photo_sets import photo
from tests.photos.test_decoding import HEIC

SIZE = (72, 66)
CONFIG = PhotosConfig(min_count=1, min_side_px=1)
SUFFIXES = (".jpg", ".jpeg", ".JPG", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
IGNORED = "ignore::UserWarning"


def exif() -> Image.Exif:
    values = Image.Exif()
    values[0x0112] = 6
    values.get_ifd(0x8769).update({0xA405: 50, 0xA002: SIZE[0], 0xA003: SIZE[1], 0x920A: 4.5})
    return values


@functools.cache
def pictures() -> tuple[bytes, ...]:
    """Small files of all formats and variants that are read."""
    picture = photo(0, SIZE)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cutout = picture.copy()
    alpha = Image.new("L", SIZE, 0)
    alpha.paste(255, (10, 10, 50, 50))
    cutout.putalpha(alpha)
    kinds: tuple[tuple[Image.Image, str, dict[str, object]], ...] = (
        (picture, "JPEG", {"exif": exif(), "icc_profile": srgb}), (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}), (picture.convert("L"), "JPEG", {"icc_profile": profile}),
        (picture, "MPO", {"save_all": True, "append_images": [picture]}),
        (picture, "PNG", {"exif": exif(), "icc_profile": srgb}), (picture.convert("P"), "PNG", {"transparency": 3}),
        (cutout, "PNG", {}), (alpha, "PNG", {}), (alpha.convert("1"), "PNG", {}),
        (picture.convert("LA"), "PNG", {}), (picture.convert("I;16"), "PNG", {}),
        (picture.convert("1"), "PNG", {}), (picture, "WEBP", {"exif": exif()}), (cutout, "WEBP", {"lossless": True}),
        (picture, "WEBP", {"save_all": True, "append_images": [cutout]}), (picture, "TIFF", {"exif": exif()}),
        (picture, "TIFF", {"compression": "tiff_lzw"}), (picture, "TIFF", {"compression": "jpeg"}),
        (picture, "TIFF", {"compression": "tiff_deflate"}), (picture.convert("F"), "TIFF", {}),
        (picture.convert("I;16"), "TIFF", {}), (picture.convert("CMYK"), "TIFF", {}),
        (picture, "TIFF", {"save_all": True, "append_images": [picture]}), (picture, "AVIF", {"quality": 30}),
    )  # fmt: skip
    files = [base64.b85decode(HEIC)]
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return tuple(files)


def with_sums(png: bytes) -> bytes:
    """A PNG whose chunks' checksums fit again, so that a decoder goes on to what is in them."""
    parts, place = [png[:8]], 8
    while place + 8 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        body = png[place + 4 : place + 8 + length]
        parts += [png[place : place + 4], body, struct.pack(">I", zlib.crc32(body))]
        place += 12 + length
    return b"".join(parts)


@st.composite
def photo_bytes(draw: st.DrawFn, only_png: bool = False) -> bytes:
    """A mutated file, one of a picture of an odd kind or size, or any bytes."""
    kind = draw(st.sampled_from(("mutated", "mutated", "mutated", "mutated", "made", "any")))
    if kind == "mutated":
        files = [file for file in pictures() if not only_png or file.startswith(b"\x89PNG")]
        data = draw(damaged(draw(st.sampled_from(files)), 2))
        return with_sums(data) if data.startswith(b"\x89PNG") and draw(st.booleans()) else data
    if kind == "any":
        return draw(st.sampled_from(pictures()))[: draw(st.integers(0, 32))] + draw(st.binary(max_size=64))
    sides = st.sampled_from((1, 2, 63, 64, 65, 66, 72, 600)) | st.integers(1, 300)
    size, mode = draw(st.just(SIZE) | st.tuples(sides, sides)), draw(st.sampled_from(MODES))
    noise = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = (
        Image.fromarray(noise)
        if draw(st.booleans())
        else Image.new("RGB", size, draw(st.sampled_from(("black", "white"))))
    )
    try:
        image = image.convert(mode)
        buffer = io.BytesIO()
        image.save(
            buffer, draw(st.sampled_from(("PNG",) if only_png else ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")))
        )
    except (OSError, ValueError):  # not every format takes every mode
        return b""
    return buffer.getvalue()


def empty(folder: Path) -> Path:
    """The folder with nothing in it."""
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


@tries()
@given(data=photo_bytes(), suffix=st.sampled_from(SUFFIXES))
@pytest.mark.filterwarnings(IGNORED)
def test_photos(playground: Path, data: bytes, suffix: str) -> None:
    path = empty(playground) / f"00{suffix}"
    path.write_bytes(data)

    def read() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inspect_folder(playground, CONFIG)
            focal_lengths(playground)

    tried("photos", playground, read)


@tries()
@given(data=photo_bytes(only_png=True) | photo_bytes(), inside=st.booleans())
@pytest.mark.filterwarnings(IGNORED)
def test_masks(playground: Path, data: bytes, inside: bool) -> None:
    folder = empty(playground)
    photo(0, SIZE).save(folder / "00.png")
    mask = folder / "masks" / "00.png" if inside else folder / "00_mask.png"
    mask.parent.mkdir(exist_ok=True)
    mask.write_bytes(data)
    read = tried("masks", playground, lambda: read_photo(folder / "00.png"))
    assert read is None or read.mask is None or read.mask.shape == (SIZE[1], SIZE[0])


WORDS = (
    "sks",
    "dog",
    "a",
    "photo",
    "of",
    "${HOME}",
    "\\",
    "\ufeff",
    "\u202e",
    "\x1b[2J",
    "<lora:x:1>",
    "word " * 90,
    "\r\n",
)


@tries()
@given(
    data=st.lists(st.sampled_from(WORDS) | st.text(max_size=10), max_size=8)
    .map(" ".join)
    .map(lambda text: text.encode(errors="surrogatepass"))
    | st.binary(max_size=64)
    | damaged("a photo of sks dog, ä".encode()),
    suffix=st.sampled_from((".txt", ".TXT")),
)
def test_captions(playground: Path, data: bytes, suffix: str) -> None:
    path = empty(playground) / f"00{suffix}"
    path.write_bytes(data)
    info = SubjectInfo(class_noun="dog")
    found = tried("captions", playground, lambda: read_caption(playground / "00.png", CONFIG, info))
    if found is not None and found[0]:
        assert "sks" in found[0].lower() and "dog" in found[0].lower()
        assert not any(unicodedata.category(character) == "Cc" for character in found[0])
