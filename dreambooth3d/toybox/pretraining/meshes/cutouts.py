"""Photographs of animals and things that somebody has cut out, from a Debian package: fur, feathers, real light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from dreambooth3d.toybox.pretraining.meshes.backgrounds import TEST_SHARE, PictureSource, split_by_name
from dreambooth3d.toybox.pretraining.meshes.nouns import is_benchmark

SIDE = 96
_SMALLEST = 150
_COVERED = (0.05, 0.9)
_FEWEST_COLOURS = 550
"""Of 64 shades of each of red, green and blue: what is drawn has fewer."""
_KINDS = "animals|clothes|food|hobbies|household|medical|military|people|plants|seasonal|sports|town|vehicles"

SOURCE = PictureSource(
    package="tuxpaint-stamps-default",
    licence="GPL-2+",
    kind="cutout",
    files=("**/stamps/**/*.png",),
    without="cartoon|mirror|flip|flags|roadsigns|candle|firework",
)


def cutouts(folder: Path) -> Iterator[tuple[dict, UInt8[ndarray, "side side 4"]]]:
    """Each photograph in a square of `SIDE` pixels, with its row of the table; colours are not multiplied by opacity.

    Args:
        folder: in which the package has been unpacked into a folder of its name.
    """
    root = folder / SOURCE.package
    for path in sorted({path for pattern in SOURCE.files for path in root.glob(pattern)}):
        name = path.relative_to(root).as_posix().split("stamps/")[-1]
        if not re.match(_KINDS, name) or re.search(SOURCE.without, name) or is_benchmark(name):
            continue
        with Image.open(path) as image:
            picture = image.convert("RGBA")
        if max(picture.size) >= _SMALLEST and _is_photograph(np.asarray(picture)):
            split = split_by_name(name, TEST_SHARE)
            yield {"package": SOURCE.package, "picture": name, "split": split}, _squared(picture)


def _is_photograph(pixels: UInt8[ndarray, "height width 4"]) -> bool:
    opaque = pixels[pixels[..., 3] > 200][:, :3].astype(np.int64) // 4
    covered = (pixels[..., 3] > 128).mean()
    return _COVERED[0] < covered < _COVERED[1] and len(np.unique(opaque @ (1, 64, 4096))) >= _FEWEST_COLOURS


def _squared(picture: Image.Image) -> UInt8[ndarray, "side side 4"]:
    """In the middle of a transparent square that it fills but for a rim, as views of meshes do."""
    picture = picture.crop(picture.getchannel("A").getbbox())
    side = round(1.15 * max(picture.size))
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    # Pillow resizes with opacity taken into account.
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
