"""Photos of two subjects in one folder are told apart, those of one are not; toybox subjects with their true masks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.photos.check import inspect_folder, with_masks
from dreambooth3d.photos.masks.source import Mask
from dreambooth3d.photos.strangers import strangers
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import SUBJECTS, casual_photos, photo_cameras, subject_recipe, write_subject

SIZE = 128


@cache
def toy(name: str) -> tuple[list[NDArray[np.uint8]], list[Mask]]:
    """A subject's photos before backgrounds of many colours and in many lights, and its true masks."""
    images = (casual_photos(name, SIZE) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    truth = render_views(subject_recipe(name), photo_cameras(name), None, SIZE).mask
    return list(images), list((truth.float() * 255).round().byte().numpy())


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
