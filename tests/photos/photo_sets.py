"""Synthetic photos with known properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.backdrops import FINE_SIZE
from dreambooth3d.masks import subject_masks

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


def masked(photos: SubjectPhotos, source: str = "smooth_background") -> SubjectPhotos:
    """The photos with the masks that their backgrounds tell, as if a source had made them."""
    found, trusted = subject_masks(photos.resized(FINE_SIZE))
    sides = [image.shape[-1] for image in photos.images]
    masks = [
        torch.nn.functional.interpolate(mask[None, None].float(), size=(side, side), mode="area")[0, 0]
        for mask, side in zip(found, sides, strict=True)
    ]
    facts = photos.facts if len(photos.facts) else photos.facts.assign(file=[f"{n}.png" for n in range(len(masks))])
    facts = facts.assign(
        mask_source=source, mask_confidence=1.0, mask_trusted=trusted.tolist(), mask_cut=0.0, width=sides, height=sides
    )
    return replace(photos, masks=tuple(masks), facts=facts)
