"""Synthetic photos with known properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

BLUE, ORANGE = (70, 110, 190), (230, 140, 30)


def photo(seed: int, size: tuple[int, int] = (160, 160), radius: float = 0.3, centre=(0.5, 0.5)) -> Image.Image:
    """An orange disc with dark spots on noisy blue; `radius` and `centre` as shares of width and height."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.new("RGB", size, BLUE)
    draw = ImageDraw.Draw(image)
    reach, x, y = radius * min(size), centre[0] * width, centre[1] * height
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=ORANGE)
    for angle, distance in zip(rng.uniform(0, 6.28, 6), rng.uniform(0, 0.7, 6), strict=True):
        spot_x, spot_y = x + reach * distance * np.cos(angle), y + reach * distance * np.sin(angle)
        draw.ellipse(
            (spot_x - 0.2 * reach, spot_y - 0.2 * reach, spot_x + 0.2 * reach, spot_y + 0.2 * reach), fill="black"
        )
    noisy = np.asarray(image).astype(float) + rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_set(folder: Path, count: int = 4, class_noun: str | None = "dog") -> Path:
    """A folder of `count` good photos, with `subject.yaml` where there is a class noun."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        photo(index, centre=(0.4 + 0.05 * index, 0.5), radius=0.2 + 0.04 * index).save(folder / f"{index:02d}.png")
    if class_noun is not None:
        (folder / "subject.yaml").write_text(f"class_noun: {class_noun}\n")
    return folder
