"""A contact sheet of the toybox world: one row per class."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch

from dreambooth3d.cameras import Cameras
from dreambooth3d.images import save_image, sheet
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.recipes import COLOUR_NAMES, NO_SCARF, RESERVED_CLASSES, Recipe
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.shapes import PATTERNS

SHEET_VIEWS = ((0.0, 15.0), (90.0, 15.0), (180.0, 15.0), (20.0, 72.0))
_VARIANTS = ((0, 40.0), (1, -35.0), (2, 140.0), (3, 60.0))


def contact_sheet(path: Path | str, size: int = 64, scale: int = 1, seed: int = 0) -> None:
    """Render every class from the front, the side, the back and overhead, then dressed and patterned variants.

    Args:
        path: where the picture is written; its suffix gives the format.
        size: pixels per render.
        scale: integer enlargement.
        seed: seed of colours and proportions.
    """
    random, rows = Random(seed), []
    for class_noun in CLASSES:
        main, second = random.sample(COLOUR_NAMES, 2)
        plain = Recipe(class_noun, main, second, seed=random.getrandbits(31))
        rows.append(render_views(plain, _cameras(SHEET_VIEWS), torch.full((3,), 0.87), size, 3).image)
        for variant, azimuth_deg in _VARIANTS:
            recipe = _variant(class_noun, variant, random)
            rows.append(render_views(recipe, _cameras(((azimuth_deg, 20.0),)), torch.ones(3), size, 3).image)
    images = torch.cat(rows)
    save_image(sheet(images, 2 * (len(SHEET_VIEWS) + len(_VARIANTS)), scale=scale), path)


def _variant(class_noun: str, index: int, random: Random) -> Recipe:
    """The class in pattern `index + 1` and one of the accessories that fit it."""
    accessories = ["hat", "bow", "flower", "flag", "scarf"][: 4 if class_noun in NO_SCARF else 5]
    if class_noun in RESERVED_CLASSES:
        accessories = ["crown", "propeller"]
    main, second, colour = random.sample(COLOUR_NAMES, 3)
    accessory = accessories[(index + random.randrange(2)) % len(accessories)]
    return Recipe(class_noun, main, second, PATTERNS[index + 1], accessory, colour, random.getrandbits(31))


def _cameras(angles_deg: tuple[tuple[float, float], ...]) -> Cameras:
    azimuth, elevation = torch.tensor(angles_deg).unbind(-1)
    return Cameras(azimuth, elevation, torch.full_like(azimuth, 2.5), torch.full_like(azimuth, 42.0))
