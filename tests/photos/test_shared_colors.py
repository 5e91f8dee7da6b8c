"""What is no part of the subject, as the other photos of a set tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreambooth3d.photos.masks.shared_colors import keep_shared
from dreambooth3d.photos.masks.source import Mask, SourcePhoto

SUBJECT, CUP = (30, 160, 60), (210, 80, 30)


def scene(seed: int, cup: bool = False, touching: bool = False) -> tuple[SourcePhoto, Mask, Mask]:
    """A green box before grey noise, an orange one beside it in some; the mask of both, and that of the green one."""
    rng = np.random.default_rng(seed)
    pixels = np.repeat(rng.integers(60, 200, (120, 120, 1)), 3, axis=-1)
    subject, other = np.zeros((120, 120), np.uint8), np.zeros((120, 120), np.uint8)
    subject[30:80, 20 + 5 * seed : 60] = 255
    if cup:
        other[70:110, 60 if touching else 80 : 110] = 255
    pixels[subject > 0], pixels[other > 0] = SUBJECT, CUP
    pixels = (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    return SourcePhoto(Path(f"{seed}.png"), pixels), np.maximum(subject, other), subject


def test_a_thing_that_only_one_photo_has_is_left_out() -> None:
    photos, masks, truth = zip(scene(0), scene(1), scene(2, cup=True), scene(3), strict=True)
    found = keep_shared(photos, masks)
    assert all(np.array_equal(each.mask, true) for each, true in zip(found, truth, strict=True))
    assert min(each.shared for each in found) > 0.9


def test_what_touches_the_subject_stays_and_is_seen_to_be_strange() -> None:
    photos, masks, _ = zip(scene(0), scene(1), scene(2, cup=True, touching=True), scene(3), strict=True)
    found = keep_shared(photos, masks)
    assert np.array_equal(found[2].mask, masks[2]) and found[2].shared < 0.75 < 0.9 < found[0].shared


def test_two_photos_do_not_tell_which_of_two_things_is_the_subject() -> None:
    photos, masks, _ = zip(scene(0), scene(2, cup=True), strict=True)
    assert [np.array_equal(each.mask, mask) for each, mask in zip(keep_shared(photos, masks), masks, strict=True)] == [
        True, True,
    ]  # fmt: skip


def test_two_pieces_of_the_subject_stay() -> None:
    photos, masks, _ = zip(*(scene(seed) for seed in range(4)), strict=True)
    split = [mask.copy() for mask in masks]
    for mask in split:
        mask[50:56] = 0
    assert all(np.array_equal(each.mask, mask) for each, mask in zip(keep_shared(photos, split), split, strict=True))
