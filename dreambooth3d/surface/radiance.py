"""Radiance's .hdr pictures, in which environments are shared; imageio reads them only with a library that it fetches.

Source: Ward 1991, "Real Pixels", and the file format in Radiance's reference manual.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MAGIC = (b"#?RADIANCE", b"#?RGBE")
_SIZE = re.compile(rb"\n\n-Y (\d+) \+X (\d+)\n")
_EXCESS = 128 + 8
"""Of the exponents, that of the bytes' own scale included."""


def read_radiance(content: bytes) -> Float[ndarray, "height width 3"]:
    """(height, width, 3) float32 linear light, the first row on top.

    Raises:
        ValueError: it is no such file, it is cut off, or its rows do not run from left to right and downwards.
    """
    size = _SIZE.search(content)
    if not content.startswith(MAGIC) or size is None or b"32-bit_rle_rgbe" not in content[: size.start()]:
        raise ValueError("it is no Radiance picture in RGBE whose rows run downwards")
    height, width = int(size[1]), int(size[2])
    rest = content[size.end() :]
    if not rest.startswith(b"\x02\x02"):
        pixels = np.frombuffer(rest[: height * width * 4].ljust(1, b"\0"), np.uint8)
        if len(pixels) != height * width * 4:
            raise ValueError("it is cut off")
        return _light(pixels.reshape(height, width, 4))
    rows, place = np.empty((height, 4, width), np.uint8), 0
    for row in rows:
        if rest[place : place + 4] != bytes([2, 2, width >> 8, width & 255]):
            raise ValueError("it is cut off, or damaged")
        place += 4
        for channel in row:
            place = _read_runs(rest, place, channel)
    return _light(rows.transpose(0, 2, 1))


def _read_runs(content: bytes, place: int, values: ndarray) -> int:
    """Fill one channel of a row with runs and literal bytes; returns the place behind them."""
    filled = 0
    while filled < len(values):
        count = content[place] if place < len(content) else 0
        repeated = count > 128
        count -= 128 if repeated else 0
        found = np.frombuffer(content[place + 1 : place + 1 + (1 if repeated else count)], np.uint8)
        if count == 0 or filled + count > len(values) or len(found) != (1 if repeated else count):
            raise ValueError("it is cut off, or damaged")
        values[filled : filled + count] = found
        filled, place = filled + count, place + 1 + len(found)
    return place


def _light(pixels: ndarray) -> Float[ndarray, "height width 3"]:
    colors, exponent = pixels[..., :3].astype(np.float32), pixels[..., 3:].astype(np.int32)
    return np.ldexp(colors, exponent - _EXCESS) * (exponent > 0)
