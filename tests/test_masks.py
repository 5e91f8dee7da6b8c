"""Subjects before smooth backgrounds: known masks, and the refusal where there is nothing smooth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreambooth3d import backdrops
from dreambooth3d.backdrops import FINE_SIZE
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.masks import background_mask, smooth_background, subject_masks
from dreambooth3d.photos.masks import backgrounds
from dreambooth3d.photos.masks.smooth_background import SmoothBackground
from dreambooth3d.photos.masks.source import SourcePhoto
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS, casual_photos, photo_cameras

SIZE = 64


def plain() -> Tensor:
    return torch.full((3, SIZE, SIZE), 0.7)


def gradient() -> Tensor:
    """Darker to the right and much darker downwards."""
    share = torch.linspace(0, 1, SIZE)
    return (0.9 - 0.15 * share[None, :] - 0.5 * share[:, None]).expand(3, SIZE, SIZE).clone()


def floor_and_wall() -> Tensor:
    image = torch.tensor([0.8, 0.7, 0.6])[:, None, None].expand(3, SIZE, SIZE).clone()
    image[:, 40:] = torch.tensor([0.3, 0.4, 0.3])[:, None, None]
    return image


def with_subject(image: Tensor, bottom: int = 50) -> tuple[Tensor, Tensor]:
    """The image with a red box that has a hole of white, and the box' mask."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[20:bottom, 18:44] = True
    image = torch.where(mask, torch.tensor([0.9, 0.05, 0.1])[:, None, None], image)
    image[:, 26:32, 26:32] = 1.0
    return image, mask


def grown(seeds: Tensor, among: Tensor) -> Tensor:
    """Bool (height, width): what seeds reach within `among`, pixel by pixel, also over corners."""
    reached = seeds & among
    while True:
        wider = (torch.nn.functional.max_pool2d(reached[None, None].float(), 3, 1, 1)[0, 0] > 0) & among
        if torch.equal(wider, reached):
            return reached
        reached = wider


def test_background_is_what_the_border_reaches() -> None:
    among = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.38
    edge = torch.from_numpy(backdrops.border_pixels(SIZE, SIZE))
    among |= edge
    expected = grown(edge, among)
    assert 0.1 < expected.float().mean() < among.float().mean(), "some of it is not reached"
    difference = torch.where(among, 0.0, 1.0).numpy()
    assert np.array_equal(backdrops.background_pixels(difference), expected.numpy())


def test_a_linear_background_is_the_least_squares_fit_to_the_border() -> None:
    """Where nothing touches the border, and the noise there is far below the scale of the weights."""
    image = (with_subject(gradient())[0] + noise(0.01)).movedim(0, -1).numpy()
    edge = backdrops.border_pixels(SIZE, SIZE)
    basis = np.dstack([np.ones((SIZE, SIZE)), *np.mgrid[:SIZE, :SIZE]])
    fit = np.linalg.lstsq(basis[edge], image[edge], rcond=None)[0]
    np.testing.assert_allclose(backdrops.smooth_background(image), basis @ fit, atol=1e-3)


def test_tensors_are_told_as_arrays_are() -> None:
    images = torch.stack([with_subject(background())[0] for background in (plain, gradient, floor_and_wall)])
    behind, (found, trusted) = smooth_background(images), subject_masks(images)
    for index, image in enumerate(images):
        pixels = np.stack([channel.numpy() for channel in image], axis=-1)
        assert np.array_equal(behind[index].movedim(0, -1).numpy(), backdrops.smooth_background(pixels))
        expected, expected_trusted = backdrops.subject_pixels(pixels)
        assert np.array_equal(found[index].numpy(), expected) and bool(trusted[index]) == expected_trusted


@pytest.mark.parametrize("side, largest", [(FINE_SIZE, 1e-6), (411, 1e-4)])
def test_pillow_resizes_as_torch_does(side: int, largest: float) -> None:
    image = torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.interpolate(
        image, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(backgrounds._resized(image[0, 0].numpy(), side), expected[0, 0].numpy(), atol=largest)


@pytest.mark.parametrize("background", [plain, gradient, floor_and_wall])
def test_mask_is_the_subject_with_its_holes(background) -> None:
    image, mask = with_subject(background())
    assert torch.equal(background_mask(image), ~mask)
    torch.testing.assert_close(smooth_background(image[None])[0], background(), atol=0.02, rtol=0)


def test_a_subject_that_touches_the_border_stays_the_subject() -> None:
    image, mask = with_subject(gradient(), bottom=SIZE)
    assert torch.equal(background_mask(image), ~mask)


def test_a_hole_of_the_backgrounds_colour_is_the_subject() -> None:
    image, mask = with_subject(plain())
    image[:, 26:32, 26:32] = 0.7
    assert torch.equal(background_mask(image), ~mask)


def test_only_smooth_backgrounds_with_something_before_them_are_trusted() -> None:
    noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images = torch.stack([with_subject(plain())[0], noise, plain()])
    masks, trusted = subject_masks(images)
    assert trusted.tolist() == [True, False, False]
    assert masks[1].all() and not masks[2].any()


def test_a_subject_that_the_frame_cuts_is_not_trusted() -> None:
    whole, touching = with_subject(plain())[0], with_subject(plain(), bottom=SIZE)[0]
    cut = touching.clone()
    cut[:, 20:, 4:60] = torch.tensor([0.9, 0.05, 0.1])[:, None, None]
    masks, trusted = subject_masks(torch.stack([whole, touching, cut]))
    assert trusted.tolist() == [True, True, False]
    assert masks[2, -1, 4:60].all(), "it is the subject all the same"


def test_masks_of_true_renders_are_the_true_masks() -> None:
    cameras = turntable_cameras(8)
    truth = render_views(DEVELOPMENT_SUBJECTS["cup"], cameras, torch.tensor([0.6, 0.75, 0.8]), SIZE)
    masks, trusted = subject_masks(truth.image)
    both, either = masks & (truth.mask > 0.5), masks | (truth.mask > 0.5)
    assert trusted.all()
    assert (both.sum(dim=(1, 2)) / either.sum(dim=(1, 2))).min() > 0.9


def overlap_and_area(masks: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) soft intersection over union with the true masks, and (n,) area as a multiple of the true one."""
    both, either = torch.minimum(masks, truth).sum(dim=(1, 2)), torch.maximum(masks, truth).sum(dim=(1, 2))
    return both / either, masks.sum(dim=(1, 2)) / truth.sum(dim=(1, 2))


def test_masks_told_at_full_size_do_not_make_subjects_larger() -> None:
    photos = casual_photos("android", FINE_SIZE)
    truth = render_views(DEVELOPMENT_SUBJECTS["android"], photo_cameras("android"), None, SIZE, supersample=4)
    pixels = (photos * 255).round().byte().permute(0, 2, 3, 1).numpy()
    found = SmoothBackground().masks([SourcePhoto(Path("photo.png"), each) for each in pixels])
    assert all(mask is not None and mask.trusted for mask in found)
    told = torch.stack([torch.from_numpy(mask.mask).float() / 255 for mask in found if mask is not None])
    masks = torch.nn.functional.interpolate(told[:, None], size=(SIZE, SIZE), mode="area")[:, 0]
    overlap, area = overlap_and_area(masks, truth.mask.float())
    assert overlap.min() > 0.98 and (area - 1).abs().max() < 0.02
    small = torch.nn.functional.interpolate(photos, size=(SIZE, SIZE), mode="area")
    overlap, area = overlap_and_area(subject_masks(small)[0].float(), truth.mask.float())
    assert overlap.max() < 0.95 and area.min() > 1.05, "told at the small size, every subject grows by half a pixel"


def faint_subject() -> tuple[Tensor, Tensor]:
    """An image with a box of nearly the background's colour, and the box' mask."""
    image, mask = plain(), torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[20:50, 18:44] = True
    image[1, mask] += 0.034
    return image, mask


def noise(strength: float) -> Tensor:
    return strength * (2 * torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 1)


def test_a_clean_background_shows_a_subject_of_nearly_its_colour() -> None:
    image, mask = faint_subject()
    assert torch.equal(background_mask(image), ~mask)
    assert torch.equal(background_mask(image + noise(0.002)), ~mask)


def test_noise_of_the_background_is_no_subject() -> None:
    image, mask = with_subject(plain())
    for strength in (0.005, 0.03, 0.06):
        assert torch.equal(background_mask((image + noise(strength)).clamp(0, 1)), ~mask)
    assert background_mask(faint_subject()[0] + noise(0.036)).all(), "where there is noise, so little says nothing"
