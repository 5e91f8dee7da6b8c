"""Measures of single photos, against known values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from dreambooth3d.photos.quality import (
    exposure,
    hash_distance,
    pad_to_square,
    perceptual_hash,
    sharpness,
    shrink,
    subject_region,
)
from tests.photos.photo_sets import BLUE, ORANGE, photo


def _reencoded(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.resize((120, 120)).save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


@pytest.mark.parametrize("seed", range(4))
def test_hash_survives_recompression_and_exposure_but_tells_photos_apart(seed: int) -> None:
    original = photo(seed, centre=(0.4 + 0.05 * seed, 0.5))
    reference = perceptual_hash(np.asarray(original))
    brighter = ImageEnhance.Brightness(original).enhance(1.1)
    mirrored = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert hash_distance(reference, perceptual_hash(np.asarray(_reencoded(original)))) <= 4
    assert hash_distance(reference, perceptual_hash(np.asarray(brighter))) <= 4
    assert hash_distance(reference, perceptual_hash(np.asarray(mirrored))) > 8
    assert hash_distance(reference, perceptual_hash(np.asarray(photo(seed + 10, radius=0.2, centre=(0.6, 0.6))))) > 8


def test_hash_distance_counts_bits() -> None:
    assert hash_distance(0, 0) == 0
    assert hash_distance(0b1011, 0b0001) == 2
    assert hash_distance(0, 2**64 - 1) == 64


def test_sharpness_falls_with_blur_and_is_zero_on_a_plain_image() -> None:
    image = photo(0, size=(256, 256))
    values = [sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))) for radius in (0, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 2e-3
    assert values[-1] < 2e-4
    assert sharpness(np.full((64, 64, 3), 90, np.uint8)) == 0


def test_sharpness_of_a_checkerboard_is_its_closed_form() -> None:
    board = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    inner = 16.0  # inside, every Laplacian is +4 or -4
    assert sharpness(np.repeat(board[..., None], 3, -1)) == pytest.approx(inner, rel=0.1)


def test_exposure_is_the_mean_luminance() -> None:
    assert exposure(np.full((8, 8, 3), 255, np.uint8)) == pytest.approx(1)
    assert exposure(np.full((8, 8, 3), (255, 0, 0), np.uint8)) == pytest.approx(0.2126)
    assert exposure(np.full((8, 8, 3), (0, 255, 0), np.uint8)) == pytest.approx(0.7152)


@pytest.mark.parametrize("radius", [0.1, 0.2, 0.3, 0.42])
def test_subject_share_and_box_of_a_disc(radius: float) -> None:
    region = subject_region(np.asarray(photo(1, size=(256, 256), radius=radius, centre=(0.5, 0.5))))
    assert region.share == pytest.approx(np.pi * radius**2, rel=0.12)
    assert region.box == pytest.approx((0.5 - radius, 0.5 - radius, 0.5 + radius, 0.5 + radius), abs=0.02)


def test_subject_that_touches_the_border_is_found_whole() -> None:
    pixels = np.full((200, 200, 3), BLUE, np.uint8)
    pixels[60:120, 0:80] = ORANGE
    region = subject_region(pixels)
    assert region.share == pytest.approx(60 * 80 / 200**2, rel=0.15)
    assert region.box == pytest.approx((0, 0.3, 0.4, 0.6), abs=0.02)


def test_subject_on_a_gradient_is_found() -> None:
    ramp = np.linspace(60, 140, 200)[:, None, None] * np.array([0.6, 0.9, 1.2])
    pixels = np.broadcast_to(ramp, (200, 200, 3)).astype(np.uint8).copy()
    pixels[70:150, 60:140] = ORANGE
    assert subject_region(pixels).share == pytest.approx(80 * 80 / 200**2, rel=0.2)


@pytest.mark.filterwarnings("error")
def test_subject_before_a_horizon_is_found() -> None:
    pixels = np.full((200, 200, 3), BLUE, np.uint8)
    pixels[100:] = (120, 160, 90)
    pixels[70:150, 60:140] = ORANGE
    assert subject_region(pixels).share == pytest.approx(80 * 80 / 200**2, rel=0.15)


def test_nothing_stands_out_of_a_plain_image() -> None:
    region = subject_region(np.full((100, 140, 3), 120, np.uint8))
    assert region.share == 0
    assert region.box == (0, 0, 0, 0)


@pytest.mark.parametrize("size", [(90, 40), (41, 90), (64, 64)])
def test_padding_keeps_every_pixel(size: tuple[int, int]) -> None:
    pixels = np.asarray(photo(2, size=size))
    square = pad_to_square(pixels)
    side = max(size)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    assert square.shape == (side, side, 3)
    assert np.array_equal(square[top : top + size[1], left : left + size[0]], pixels)
    if size[0] != size[1]:
        assert np.abs(square[0, 0].astype(int) - BLUE).max() < 12


def test_shrink_keeps_the_aspect_and_never_enlarges() -> None:
    assert shrink(np.zeros((300, 600, 3), np.uint8), 128).shape == (64, 128, 3)
    assert shrink(np.zeros((30, 60, 3), np.uint8), 128).shape == (30, 60, 3)
