"""Photographs and textures from Debian packages, cut into squares."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

SIDE = 256
_QUALITY = 85
_CROPS = 2
TEST_SHARE = 0.1
_SMALLEST = 200
LIMITS = {"photograph": 420, "texture": 310}
"""The most squares of each kind."""


@dataclass(frozen=True)
class PictureSource:
    """A package with photographs or textures.

    Attributes:
        package: Debian package.
        licence: from its copyright file.
        kind: `photograph` or `texture`.
        files: its pictures, globs in the package's folder.
        without: a pattern of paths that are left out.
        archives: of the archives in it those that are unpacked, a glob.
        members: what is unpacked of them; () is everything.
    """

    package: str
    licence: str
    kind: str
    files: tuple[str, ...]
    without: str = "$^"
    archives: str = ""
    members: tuple[str, ...] = ()


_MAPS = r"_(nm|norm|normal|spec|gloss|bump|glow|height|mask|local|luma|env|fx|sp|n|s|h|d|reflect|shirt|pants)\."

_GCOMPRIS = (
    "explore_monuments erase explore_world_animals explore_farm_animals explore_world_music details clickgame "
    "categorization"
).split()

SOURCES = (
    PictureSource(
        "gcompris-qt-data",
        "GPL-3+, CC-BY (1.0 to 3.0), CC-BY-SA (2.0 to 4.0), CC0-1.0, GFDL-1.2, Free Art License",
        "photograph",
        tuple(f"**/{name}.rcc" for name in _GCOMPRIS),
    ),
    PictureSource(
        "lomiri-wallpapers-16.04",
        "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0",
        "photograph",
        ("**/backgrounds/*.jpg",),
        "analogpattern|umang",
    ),
    PictureSource(
        "lomiri-wallpapers-20.04",
        "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0",
        "photograph",
        ("**/backgrounds/Kleiber*.jpg",),
    ),
    PictureSource("mate-backgrounds", "GPL-2+, CC-BY-SA-4.0", "photograph", ("**/mate/nature/*.jpg",)),
    PictureSource(
        "plasma-workspace-wallpapers",
        "GPL-2+",
        "photograph",
        tuple(
            f"**/{name}/contents/images/2560x1600.jpg"
            for name in "FallenLeaf Path DarkestHour Autumn summer_1am EveningGlow Grey Kite ColorfulCups OneStandsOut "
            "ColdRipple".split()
        ),
    ),
    PictureSource("tuxpaint-data", "GPL-2+", "photograph", ("**/templates/*.jpg",)),
    PictureSource(
        "stellarium-data",
        "GPL-2+",
        "photograph",
        (
            "**/landscapes/guereins/guereins[3-8].png",
            "**/landscapes/hurricane/hurricane*.png",
            "**/landscapes/trees/trees_512.png",
        ),
    ),
    PictureSource("0ad-data", "CC-BY-SA-3.0", "texture", ("**/art/textures/terrain/types/**/*.dds",), _MAPS),
    PictureSource(
        "ufoai-textures",
        "GPL-2+, CC-BY-SA-3.0",
        "texture",
        ("**/tex_*/*.jpg",),
        _MAPS + "|tex_pics|tex_lights",
        "0textures.pk3",
    ),
    PictureSource(
        "nexuiz-textures",
        "GPL-2+",
        "texture",
        ("**/textures/**/*.jpg", "**/textures/**/*.tga"),
        _MAPS + "|common|light",
        "*.pk3",
    ),
    PictureSource(
        "supertuxkart-data",
        "CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0, GPL-2",
        "texture",
        ("**/data/textures/*.jpg",),
        _MAPS + "|(?i:normal|gloss|sky|gfx)",
    ),
)


def split_by_name(name: str, test_share: float) -> str:
    """`test` for about this share of all names, the same ones each time; `train` otherwise."""
    return "test" if zlib.crc32(name.encode()) / 2**32 < test_share else "train"


def cut_backgrounds(folder: Path) -> Iterator[tuple[dict, bytes]]:
    """Squares of `SIDE` pixels as JPEG, each with its row of the table, up to `LIMITS` of each kind.

    Args:
        folder: in which each package has been unpacked into a folder of its name.
    """
    for kind, limit in LIMITS.items():
        pictures = [one for source in SOURCES if source.kind == kind for one in _pictures(folder, source)]
        order = np.random.default_rng(1).permutation(len(pictures))
        count = 0
        for i in order:
            package, name, data = pictures[i]
            crops = _squares(data, f"{package}/{name}", _CROPS if kind == "photograph" else 1)
            for square in crops:
                if count < limit:
                    count += 1
                    yield _row(package, name, kind), _encoded(square)


def _row(package: str, name: str, kind: str) -> dict:
    picture = f"{package}/{name}"
    return {"package": package, "picture": picture, "kind": kind, "split": split_by_name(picture, TEST_SHARE)}


def _pictures(folder: Path, source: PictureSource) -> Iterator[tuple[str, str, bytes | Path]]:
    root = folder / source.package
    paths = sorted({path for pattern in source.files for path in root.glob(pattern) if path.is_file()})
    for path in paths:
        name = path.relative_to(root).as_posix()
        if re.search(source.without, name):
            continue
        if path.suffix == ".rcc":
            for number, data in enumerate(_webp_in(path.read_bytes())):
                yield source.package, f"{path.stem}/{number}", data
        else:
            yield source.package, name, path


def _webp_in(resources: bytes) -> Iterator[bytes]:
    """The WebP pictures in a file of Qt resources, in which they lie as they are."""
    for found in re.finditer(rb"RIFF(....)WEBP", resources, re.DOTALL):
        yield resources[found.start() : found.start() + 8 + struct.unpack("<I", found[1])[0]]


def _squares(data: bytes | Path, name: str, crops: int) -> Iterator[UInt8[ndarray, "side side 3"]]:
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, NotImplementedError):
        return
    shorter = min(picture.size)
    if shorter < _SMALLEST:
        return
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(crops if shorter >= 2 * SIDE else 1):
        side = int(shorter * (rng.uniform(0.55, 1.0) if shorter >= 1.5 * SIDE else 1.0))
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        square = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = np.asarray(square)
        if pixels.std() > 9 and 22 < pixels.mean() < 240:
            yield pixels


def _encoded(square: UInt8[ndarray, "side side 3"]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(square).save(out, "jpeg", quality=_QUALITY, optimize=True)
    return out.getvalue()
