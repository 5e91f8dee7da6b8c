"""The moving picture on the README's first screen: a run's photos on the left, on the right its asset, turning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

ASSET_PX, PHOTO_PX, GAP_PX, ARROW_PX = 320, 152, 16, 72
PHOTO_COLUMNS = 3
FRAME_MS, QUALITY = 80, 82
LIMIT_BYTES = 1_500_000
INK = (90, 90, 90)


def turning(photos: Sequence[Image.Image], views: Sequence[Image.Image]) -> list[Image.Image]:
    """One picture for each view, with all photos beside it.

    Args:
        photos: square, at least one; the first six are shown.
        views: of the asset, evenly all around.
    """
    ground, left = _photos(photos[: 2 * PHOTO_COLUMNS])
    return [_with(ground, view, left) for view in views]


def _photos(photos: Sequence[Image.Image]) -> tuple[Image.Image, int]:
    """The ground with photos and arrow, and where the asset stands on it."""
    columns = min(PHOTO_COLUMNS, len(photos))
    left = columns * (PHOTO_PX + GAP_PX) - GAP_PX
    ground = Image.new("RGB", (left + ARROW_PX + ASSET_PX, ASSET_PX), "white")
    rows = -(-len(photos) // columns)
    height = rows * (PHOTO_PX + GAP_PX) - GAP_PX
    for index, photo in enumerate(photos):
        row, column = divmod(index, columns)
        count = min(columns, len(photos) - row * columns)
        indent = (left - count * (PHOTO_PX + GAP_PX) + GAP_PX) // 2  # a row that is not full stands in the middle
        small = photo.convert("RGB").resize((PHOTO_PX, PHOTO_PX), Image.Resampling.LANCZOS)
        place = indent + column * (PHOTO_PX + GAP_PX), (ASSET_PX - height) // 2 + row * (PHOTO_PX + GAP_PX)
        ground.paste(small, place)
    _arrow(ground, left)
    return ground, left + ARROW_PX


def _arrow(ground: Image.Image, left: int) -> None:
    draw, middle, start, end = ImageDraw.Draw(ground), ASSET_PX // 2, left + 16, left + ARROW_PX - 14
    draw.line([(start, middle), (end - 8, middle)], fill=INK, width=4)
    draw.polygon([(end, middle), (end - 14, middle - 9), (end - 14, middle + 9)], fill=INK)


def _with(ground: Image.Image, view: Image.Image, left: int) -> Image.Image:
    picture = ground.copy()
    picture.paste(view.convert("RGB").resize((ASSET_PX, ASSET_PX), Image.Resampling.LANCZOS), (left, 0))
    return picture


def write_turning(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write pictures as one that moves, without an end.

    Raises:
        ValueError: it would be larger than a first screen may be.
    """
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0, quality=QUALITY, method=6,
        minimize_size=True,
    )  # fmt: skip
    if path.stat().st_size > LIMIT_BYTES:
        path.unlink()
        raise ValueError(f"{path.name} would have more than {LIMIT_BYTES / 1e6:.1f} MB. Take a run with fewer views.")
