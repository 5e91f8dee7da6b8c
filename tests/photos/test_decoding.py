"""Decoding of photos: which decoders a file reaches, in how much memory, and with which colours."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dreambooth3d.errors import PhotoSetError
from dreambooth3d.photos.decoding import KEPT_SIDE_PX, content_format, decoded
from dreambooth3d.photos.reading import read_photo

HEIC = (
    r"0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0005LZDn*}000000000XXk=`10000000000aA{+700000000000000000000G-+&aV*mgE07O"
    r"6l0ssL300001;s5~v000000021v0ssI200J8T0RR9100000Bme*aIB98aW&i*H00062000$fZf0cy000000RRAKc4ILB0000LX>Mj^0ssI30"
    r"0IC2MR;ju000004sdC7Z2$lO00031008}IaB^?}007--aAR)(004Gqc4I>U18@KU0FVFx0000U@BsY%`1k+-4+CHT0RR|40Sp2E{{wIU00RJ"
    r"!0009300RIXx&lC90096hLID8-Z~y=U0FVFx0{{R603M(qfd!W8<fgf}2xu@M00096AOHXZ03l)k0RRR>0l{;?i2wiq6Ju{|a&BX6cmM$a4F"
    r"Cp!0000KX>)L8000000000$0000$0000eV{Bn?0000$000010000m000010000000002|NsB+000020000GaA|mH000000|*ER0000OX>e^}"
    r"0000000001009Mo0s{qv0000QX>w&|000000000EV`Ot<00IC3009610A+1tVRQfh05vE9uL<BuNJ+WPrhlH^z3BhGALipMZ~JyP!I!ZrHYw"
    r"cDqV7b7QoMli_7L^HugfxGoAH1E000I>cxh$;08LE*DgXcg2mk>A5&#1L000310RR910000"
)
"""64 x 48 pixels of (70, 110, 190), with a square of (230, 140, 30) from 8 to 23; written by pillow-heif 1.8."""
ORANGE, BLUE = (230, 140, 30), (70, 110, 190)
LIMIT_MIB = 500
PEAK = """
import resource, sys
from pathlib import Path
from dreambooth3d.photos import check, reading
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
photo = reading.read_photo(Path(sys.argv[1]))
print(photo.width, photo.height, max(photo.pixels.shape), peak() - before)
"""


def picture(size: tuple[int, int] = (64, 48)) -> Image.Image:
    image = Image.new("RGB", size, BLUE)
    ImageDraw.Draw(image).rectangle((8, 8, 23, 23), fill=ORANGE)
    return image


@pytest.mark.parametrize(("format", "suffix"), [("JPEG", ".png"), ("PNG", ".jpg"), ("WEBP", ".tif"), ("TIFF", ".heic"),
                                                ("AVIF", ".jpg")])  # fmt: skip
def test_the_content_counts_and_not_the_name(tmp_path: Path, format: str, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    picture().save(path, format=format, quality=95)
    pixels = read_photo(path).pixels
    np.testing.assert_allclose(pixels[15, 15], ORANGE, atol=8)
    np.testing.assert_allclose(pixels[40, 50], BLUE, atol=8)


def test_what_iphones_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "IMG_0003.HEIC"
    path.write_bytes(base64.b85decode(HEIC))
    photo = read_photo(path)
    assert (photo.width, photo.height) == (64, 48)
    np.testing.assert_allclose(photo.pixels[15, 15], ORANGE, atol=8)
    np.testing.assert_allclose(photo.pixels[40, 50], BLUE, atol=8)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (/tmp/y) run\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"), (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "GIF"), (b"BM\x36\x00\x00\x00", "BMP"),
        (b"8BPS\x00\x01", "Photoshop"), (b"\n  <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video"), (b"PK\x03\x04rest", "ZIP"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"), (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "raw"),
    ],
)  # fmt: skip
def test_other_contents_reach_no_decoder_and_are_named(
    tmp_path: Path, content: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a decoder was asked"))
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(PhotoSetError, match=rf"x\.png: is a {name} file\. Export the photo as JPEG") as raised:
        read_photo(path)
    assert str(raised.value).count(". ") == 1


def test_a_raw_file_in_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    picture().save(path, tiffinfo={50706: b"\x01\x04\x00\x00"})
    with pytest.raises(PhotoSetError, match="is a raw file"):
        read_photo(path)


def test_a_mask_that_is_no_png_inside_is_refused(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    picture().convert("L").save(tmp_path / "a_mask.png", format="JPEG")
    with pytest.raises(PhotoSetError, match=r"a_mask\.png: is a JPEG file, but masks are PNG files"):
        read_photo(tmp_path / "a.png")


def test_known_formats_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    for format, name in {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "TIFF": "TIFF", "AVIF": "AVIF", "GIF": "GIF",
                         "BMP": "BMP", "EPS": "PostScript", "ICO": "Windows icon"}.items():  # fmt: skip
        path = tmp_path / "x"
        picture((64, 64)).save(path, format=format)
        assert content_format(path.read_bytes()[:64]) == name


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16"])
def test_a_large_photo_is_reduced_strip_by_strip_to_what_a_mean_over_squares_gives(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreambooth3d.photos.decoding._STRIP_PIXELS", 2**16)
    rng, size = np.random.default_rng(0), (2 * KEPT_SIDE_PX + 7, 500)
    noise = rng.integers(0, 65536 if mode == "I;16" else 256, (size[1], size[0]), dtype=np.uint16)
    if mode == "I;16":
        image = Image.fromarray(noise)
        expected = Image.fromarray(np.round(noise / 257).astype(np.uint8)).reduce(2).convert("RGB")
    else:
        image = Image.fromarray(noise.astype(np.uint8)).convert("RGB").convert(mode)
        if mode == "RGBA":
            image.putalpha(Image.fromarray(noise.T.reshape(noise.shape).astype(np.uint8)))
        full = {"RGBA": "RGBA", "L": "L", "1": "L", "CMYK": "CMYK"}.get(mode, "RGB")
        expected = image.convert(full).reduce(2).convert("RGBA" if mode == "RGBA" else "RGB")
    path = tmp_path / "x.tif"
    image.save(path)
    small, whole = decoded(path)
    assert whole == size
    np.testing.assert_array_equal(np.asarray(small), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_photos_are_upright(tmp_path: Path, orientation: int) -> None:
    path, exif = tmp_path / "x.jpg", Image.Exif()
    exif[274] = orientation
    image = picture((64, 48)).resize((4096, 3072))
    image.save(path, exif=exif, quality=92)
    small, size = decoded(path)
    lying = orientation >= 5
    assert size == ((3072, 4096) if lying else (4096, 3072))
    assert small.size == ((768, 1024) if lying else (1024, 768))
    # The square's middle is a quarter from the left and a third from the top of the photo as it is stored.
    x, y = {1: (0.25, 0.33), 2: (0.75, 0.33), 3: (0.75, 0.67), 4: (0.25, 0.67), 5: (0.33, 0.25), 6: (0.67, 0.25),
            7: (0.67, 0.75), 8: (0.33, 0.75)}[orientation]  # fmt: skip
    np.testing.assert_allclose(np.asarray(small)[int(y * small.height), int(x * small.width)], ORANGE, atol=8)


@pytest.mark.parametrize(
    ("mode", "size", "options"),
    [
        ("RGB", (12000, 8400), {"format": "JPEG", "quality": 50}),
        ("RGB", (9000, 8600), {"format": "JPEG", "quality": 50, "progressive": True}),
        ("I;16", (8900, 8900), {"format": "PNG", "compress_level": 1}),
        ("CMYK", (7700, 7700), {"format": "JPEG", "quality": 50, "progressive": True, "subsampling": 0}),
        ("RGB", (5400, 5400), {"format": "WEBP", "quality": 5, "method": 0}),
    ],
)
def test_memory_is_bounded(tmp_path: Path, mode: str, size: tuple[int, int], options: dict[str, Any]) -> None:
    path = tmp_path / "x.jpg"
    colour = {"I;16": 9000, "CMYK": (90, 40, 20, 9)}.get(mode, (90, 40, 20))
    Image.new(mode, size, colour).save(path, **options)
    told = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    width, height, side, mib = map(float, told.stdout.split())
    assert (width, height) == size and side == 512
    assert mib < LIMIT_MIB


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (20000, 6000)).save(path)
    with pytest.raises(PhotoSetError, match=r"x\.png: has 120 megapixels\. Save it with at most 100"):
        read_photo(path)


def wide_profile() -> bytes:
    """An ICC profile with Display P3's primaries (adapted to D50, from Apple's own) and a gamma of 2.2."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(map(s15, values))

    name = b"wide\x00"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.2412, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.1571, 0.06657, 0.78407),
        b"rTRC": b"curv" + bytes(4) + struct.pack(">IHH", 1, round(2.2 * 256), 0),
    }  # fmt: skip
    tags |= {b"gTRC": tags[b"rTRC"], b"bTRC": tags[b"rTRC"]}
    table, data, place = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", place, len(content))
        data, place = data + padded, place + len(padded)
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + s15(0.9642) + s15(1.0) + s15(0.8249)
    return head.ljust(128, b"\x00") + body


P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
"""Linear; both have the white point D65 (CSS Color 4)."""


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_converted_by_their_profile(tmp_path: Path, alpha: bool) -> None:
    given, path = np.array([180, 90, 60]), tmp_path / "x.png"
    image = Image.new("RGBA" if alpha else "RGB", (64, 48), (*given, 255) if alpha else tuple(given))
    if alpha:
        image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    image.save(path, icc_profile=wide_profile())
    linear = P3_TO_SRGB @ (given / 255) ** 2.2
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    photo = read_photo(path)
    np.testing.assert_allclose(photo.pixels[30, 30], expected, atol=1.5)
    assert np.abs(photo.pixels[30, 30] - given).max() > 8
    assert (photo.alpha is not None) == alpha


@pytest.mark.parametrize("profile", [b"no profile", wide_profile()[:200]])
def test_a_broken_profile_says_nothing(tmp_path: Path, profile: bytes) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (64, 48), (180, 90, 60)).save(path, icc_profile=profile)
    np.testing.assert_array_equal(read_photo(path).pixels[3, 3], (180, 90, 60))
