"""What colours tell of a set: photos of two subjects, other light, one background; toybox subjects with true masks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.photos.backgrounds import SAME, background_sameness
from dreambooth3d.photos.check import inspect_folder, with_masks
from dreambooth3d.photos.colour_cast import MIN_CAST, colour_casts, tint
from dreambooth3d.photos.masks.source import Mask
from dreambooth3d.photos.strangers import strangers
from dreambooth3d.toybox import subjects
from dreambooth3d.toybox.backgrounds import paint_backgrounds, random_backgrounds
from dreambooth3d.toybox.render import Render, render_views
from dreambooth3d.toybox.subjects import SHIPPED_SUBJECTS, SUBJECTS, casual_photos, write_subject

SIZE = 128


@cache
def toy(name: str) -> tuple[list[NDArray[np.uint8]], list[Mask]]:
    """A subject's photos before backgrounds of many colours and in many lights, and the true masks of their renders."""
    renders = []

    def kept(*arguments: Any) -> Render:
        renders.append(render_views(*arguments))
        return renders[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "render_views", kept)
        images = (casual_photos(name, SIZE) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    (render,) = renders
    return list(images), list((render.mask.float() * 255).round().byte().numpy())


@pytest.mark.parametrize("name", SUBJECTS)
def test_photos_of_one_subject_from_all_sides_belong_together(name: str) -> None:
    assert strangers(*toy(name)) == []


@pytest.mark.parametrize(
    ("first", "second"), [("corgi", "soda_can"), ("tabby", "bunny"), ("cup", "bunny"), ("teapot", "shuttle")]
)
def test_photos_of_another_subject_are_named(first: str, second: str) -> None:
    (images, masks), (others, other_masks) = toy(first), toy(second)
    assert strangers([*images[:4], others[0]], [*masks[:4], other_masks[0]]) == [4]
    assert strangers([others[1], *images[:3], others[3]], [other_masks[1], *masks[:3], other_masks[3]]) == [0, 4]
    assert strangers([*images[:2], *others[:2]], [*masks[:2], *other_masks[:2]]) == [2, 3]


def test_what_lies_around_the_subject_does_not_count() -> None:
    images, masks = toy("corgi")
    inside = [mask[..., None] > 0 for mask in masks]
    behind = [np.full_like(images[0], color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), 0, 255)]
    composed = [np.where(*each) for each in zip(inside, images, behind, strict=True)]
    assert strangers(composed, masks) == []


def test_photos_without_a_mask_are_not_judged() -> None:
    images, masks = toy("corgi")
    empty = np.zeros_like(masks[0])
    assert strangers([*images, images[0]], [*masks, empty]) == []
    assert strangers(images, [empty] * 5) == []


def test_the_check_says_which_photos_do_not_belong(tmp_path: Path) -> None:
    folder = write_subject("corgi", tmp_path)
    write_subject("soda_can", tmp_path)
    report = with_masks(inspect_folder(folder), PhotosConfig(), PhotoModels())
    assert not any("another subject" in text for text in report.findings)
    Image.open(tmp_path / "soda_can" / "00.jpg").save(folder / "02.jpg", quality=95)
    report = with_masks(inspect_folder(folder), PhotosConfig(), PhotoModels())
    (said,) = [text for text in report.findings if "another subject" in text]
    assert ": 02.jpg." in said and "remove" in said


WARM, COLD = (1.25, 1.0, 0.75), (0.85, 1.0, 1.3)


def lit(image: NDArray[np.uint8], gains: tuple[float, float, float]) -> NDArray[np.uint8]:
    """The photo in light of other colour: a gain on the linear light of each channel."""
    coded = image / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4) * gains
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light.clip(1e-9) ** (1 / 2.4) - 0.055)
    return (coded * 255).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", SHIPPED_SUBJECTS)
def test_photos_in_one_light_are_not_tinted(name: str) -> None:
    assert [tint(cast) for cast in colour_casts(*toy(name))] == [None] * 5


@pytest.mark.parametrize(
    ("name", "gains", "word"),
    [("corgi", WARM, "yellower"), ("corgi", COLD, "bluer"), ("tabby", WARM, "yellower"), ("soda_can", COLD, "bluer")],
)
def test_the_photo_in_other_light_is_named_with_its_tint(
    name: str, gains: tuple[float, float, float], word: str
) -> None:
    images, masks = toy(name)
    casts = colour_casts([*images[:3], lit(images[3], gains), images[4]], masks)
    assert [tint(cast) for cast in casts] == [None, None, None, word, None]
    assert np.abs(casts[3] - np.log([gains[0], gains[2]])).max() < 0.15


def test_what_has_no_mask_or_two_photos_only_is_not_judged() -> None:
    images, masks = toy("corgi")
    tinted = [*images[:3], lit(images[3], WARM), images[4]]
    assert not colour_casts(tinted, [*masks[:3], np.zeros_like(masks[3]), masks[4]]).any()
    assert not colour_casts(tinted[2:4], masks[2:4]).any()
    assert tint(np.array([MIN_CAST, 0.0])) == "redder" and tint(np.array([0.0, -1.1 * MIN_CAST])) == "yellower"


def before(name: str, seed: int, brightness: tuple[float, ...]) -> list[NDArray[np.uint8]]:
    """A subject's photos before one background in several lights."""
    images, masks = toy(name)
    wall = paint_backgrounds(*random_backgrounds(1, Random(seed), white_share=0.0), len(images[0]))[0]
    wall = wall.permute(1, 2, 0).numpy() * 255
    walls = [(wall * each).clip(0, 255) for each in brightness]
    shown = zip(images, masks, walls, strict=True)
    return [np.where(mask[..., None] > 127, image, behind).astype(np.uint8) for image, mask, behind in shown]


@pytest.mark.parametrize("name", SHIPPED_SUBJECTS)
def test_one_background_is_told_from_several(name: str) -> None:
    images, masks = toy(name)
    several = background_sameness(images, masks)
    ones = [background_sameness(before(name, seed, (0.88, 0.95, 1.0, 1.05, 1.1)), masks) for seed in range(3)]
    assert several is not None and several < SAME < min(one for one in ones if one is not None)
    assert background_sameness(images[:1], masks[:1]) is None
