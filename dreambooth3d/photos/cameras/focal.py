"""Focal lengths as cameras note them in their photos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from PIL import ExifTags

from dreambooth3d.photos.decoding import opened
from dreambooth3d.photos.subject import photo_files

PLAUSIBLE_MM = (8.0, 400.0)
MAX_ASPECT_CHANGE = 0.02
"""Of the sides' ratio since the photo was taken; a photo that was cut shows less than its focal length says."""


def focal_lengths(folder: Path) -> list[float]:
    """For each photo in a folder, by name, its focal length in mm in terms of 35 mm film; NaN where none is noted.

    It is not believed of a photo that was cut to another shape since it was taken.
    """
    return [focal_length(path) for path in photo_files(folder)]


def focal_length(path: Path) -> float:
    """The same of one photo."""
    with opened(path) as image:
        return _focal_length(image.getexif().get_ifd(ExifTags.IFD.Exif), image.size)


def _focal_length(exif: Mapping[int, object], size: tuple[int, int]) -> float:
    try:
        length = float(exif[ExifTags.Base.FocalLengthIn35mmFilm])  # type: ignore[arg-type]
        taken = [float(exif.get(tag, side)) for tag, side in zip(_SIDES, size, strict=True)]  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan
    (short, long), (short_then, long_then) = sorted(size), sorted(taken)
    whole = long_then > 0 and abs(short * long_then / (long * short_then or 1) - 1) <= MAX_ASPECT_CHANGE
    return length if whole and PLAUSIBLE_MM[0] <= length <= PLAUSIBLE_MM[1] else math.nan


_SIDES = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
