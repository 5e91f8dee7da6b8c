"""The toybox subjects: six that ship with photos, and those kept for development and for the benchmark."""

from __future__ import annotations

import zlib
from pathlib import Path
from random import Random

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.errors import ConfigError
from dreambooth3d.images import to_pil
from dreambooth3d.toybox.backgrounds import paint_backgrounds, random_backgrounds
from dreambooth3d.toybox.captions import caption
from dreambooth3d.toybox.recipes import HELD_OUT_SEEDS, Recipe
from dreambooth3d.toybox.render import render_views

IDENTIFIER = "sks"
PHOTO_SIZE = 256
PHOTO_AZIMUTHS_DEG = (-50.0, -10.0, 30.0, 80.0, 155.0)
_SEED = HELD_OUT_SEEDS.start

SHIPPED_SUBJECTS = {
    "corgi": Recipe("dog", "orange", "white", "spotted", "scarf", "blue", _SEED),
    "tabby": Recipe("cat", "brown", "yellow", "striped", "bow", "red", _SEED + 1),
    "alarm_clock": Recipe("clock", "red", "blue", "spotted", "flag", "yellow", _SEED + 2),
    "soda_can": Recipe("can", "green", "pink", "striped", "flower", "purple", _SEED + 3),
    "mallard": Recipe("duck", "purple", "yellow", "striped", "hat", "green", _SEED + 4),
    "teapot": Recipe("teapot", "blue", "orange", "checkered", "hat", "red", _SEED + 5),
}
DEVELOPMENT_SUBJECTS = {
    "urn": Recipe("vase", "green", "orange", "striped", "bow", "white", _SEED + 100),
    "cup": Recipe("mug", "red", "black", "checkered", "flower", "orange", _SEED + 101),
    "taxi": Recipe("car", "purple", "white", "striped", "flag", "black", _SEED + 102),
    "android": Recipe("robot", "blue", "orange", "spotted", "hat", "purple", _SEED + 103),
    "bunny": Recipe("rabbit", "purple", "pink", "plain", "scarf", "yellow", _SEED + 104),
    "shuttle": Recipe("rocket", "brown", "green", "checkered", "scarf", "green", _SEED + 105),
}
TEST_SUBJECTS = {
    "toadstool": Recipe("mushroom", "red", "yellow", "spotted", "propeller", "white", _SEED + 200),
    "orca": Recipe("whale", "black", "pink", "striped", "crown", "orange", _SEED + 201),
    "poodle": Recipe("dog", "black", "pink", "checkered", "hat", "red", _SEED + 202),
    "cottage": Recipe("house", "blue", "orange", "zigzag", "flag", "black", _SEED + 203),
    "frosty": Recipe("snowman", "red", "black", "zigzag", "crown", "yellow", _SEED + 204),
    "koi": Recipe("fish", "pink", "green", "striped", "hat", "purple", _SEED + 205),
    "armchair": Recipe("chair", "purple", "white", "checkered", "bow", "white", _SEED + 206),
    "tugboat": Recipe("boat", "red", "yellow", "spotted", "flower", "orange", _SEED + 207),
}
SUBJECTS = {**SHIPPED_SUBJECTS, **DEVELOPMENT_SUBJECTS, **TEST_SUBJECTS}


def subject_recipe(name: str) -> Recipe:
    """The recipe of a named subject.

    Raises:
        ConfigError: no subject has this name.
    """
    if name not in SUBJECTS:
        raise ConfigError(f"toybox subject {name!r} is unknown. Choose one of {list(SUBJECTS)}.")
    return SUBJECTS[name]


def photo_cameras(name: str) -> Cameras:
    """Five cameras as of someone who walks around the subject, more in front of it than behind."""
    random = Random(zlib.crc32(name.encode()))
    mirrored = random.choice((-1.0, 1.0))
    rows = [
        (
            mirrored * azimuth + random.uniform(-9, 9),
            random.uniform(6, 36),
            random.uniform(2.3, 2.75),
            random.uniform(40, 46),
        )
        for azimuth in PHOTO_AZIMUTHS_DEG
    ]
    return Cameras(*torch.tensor(rows).unbind(-1))


def photo_azimuths_deg(name: str) -> list[float]:
    """From where the five photos are taken, in [-180, 180)."""
    return wrap_degrees(photo_cameras(name).azimuth_deg).tolist()


def casual_photos(name: str, size: int) -> Float[Tensor, "5 3 {size} {size}"]:
    """(5, 3, size, size) photos in [0, 1]: different sides, distances, backgrounds and exposures."""
    background, exposure = _scenery(name, size)
    images = render_views(subject_recipe(name), photo_cameras(name), background, size).image
    return (images * exposure[:, None, None, None]).clamp(0, 1)


def photo_exposures(name: str) -> Float[Tensor, " 5"]:
    """(5,) factor on the brightness of each photo."""
    return _scenery(name, size=1)[1]


def _scenery(name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Backgrounds (5, 3, size, size) and exposures (5,) of the photos."""
    random = Random(zlib.crc32(f"{name} photos".encode()))
    count = len(PHOTO_AZIMUTHS_DEG)
    background = paint_backgrounds(*random_backgrounds(count, random, white_share=0.0), size)
    return background, torch.tensor([random.uniform(0.88, 1.1) for _ in range(count)])


def write_subject(name: str, folder: Path | str) -> Path:
    """Write a subject's photo set: `00.jpg` and so on, `subject.yaml` and `ground_truth.yaml`.

    Args:
        name: a key of `SUBJECTS`.
        folder: parent of the new folder `<folder>/<name>`.

    Returns:
        The subject's folder.

    Raises:
        ConfigError: no subject has this name.
    """
    recipe, target = subject_recipe(name), Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    for index, photo in enumerate(casual_photos(name, PHOTO_SIZE)):
        to_pil(photo).save(target / f"{index:02d}.jpg", quality=92, subsampling=0)
    subject = {"class_noun": recipe.class_noun, "identifier": IDENTIFIER, "description": caption(recipe)}
    (target / "subject.yaml").write_text(yaml.safe_dump(subject, sort_keys=False))
    truth = recipe.to_dict() | {"photo_azimuths_deg": [round(angle, 1) for angle in photo_azimuths_deg(name)]}
    comment = "# What this toybox subject really is; only the evaluate step reads it.\n"
    (target / "ground_truth.yaml").write_text(comment + yaml.safe_dump(truth, sort_keys=False))
    return target
