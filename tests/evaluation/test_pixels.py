"""Pixel metrics against scikit-image and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from dreambooth3d.evaluation.pixels import (
    Views,
    blank_baseline,
    chroma_excess,
    color_error,
    depth_error,
    mask_iou,
    mean_baseline,
    pixel_metrics,
    psnr,
    psnr_fg,
    silhouette_baseline,
    ssim,
)


def random_views(seed: int) -> Views:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(4, 24, 24, generator=generator) > 0.6).float()
    images = torch.rand(4, 3, 24, 24, generator=generator)
    return Views(images * masks[:, None] + (1 - masks[:, None]), masks)


def test_psnr_equals_scikit_image():
    views, truth = random_views(0), random_views(1)
    expected = [
        peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=1)
        for a, b in zip(views.images, truth.images, strict=True)
    ]
    assert psnr(views, truth).tolist() == pytest.approx(expected, rel=1e-5)


def test_psnr_fg_looks_only_at_the_union():
    truth, views = torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    true_mask, mask = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    true_mask[:, :2], mask[:, 1:4] = 1, 1
    truth[:, :, :2], views[:, :, 1:4] = 0.5, 0.5
    views[:, :, 7] = 0.0  # outside of both masks: must not count
    # Of the 4 rows in the union, the shared one is right, the other three are wrong by 0.5.
    expected = -10 * math.log10(0.75 * 0.25)
    assert psnr_fg(Views(views, mask), Views(truth, true_mask)).item() == pytest.approx(expected, abs=1e-4)


def test_psnr_fg_weighs_the_same_in_a_larger_frame():
    views, truth = random_views(2), random_views(3)

    def pad(value):
        return Views(
            torch.nn.functional.pad(value.images, (9, 9, 9, 9), value=1.0),
            torch.nn.functional.pad(value.masks, (9, 9, 9, 9)),
        )

    assert torch.allclose(psnr_fg(views, truth), psnr_fg(pad(views), pad(truth)), atol=1e-4)
    assert (psnr(pad(views), pad(truth)) > psnr(views, truth) + 2).all()


def test_empty_masks():
    empty = Views(torch.ones(2, 3, 16, 16), torch.zeros(2, 16, 16))
    assert psnr_fg(empty, empty).isnan().all()
    assert mask_iou(empty, empty).tolist() == [1, 1]


def test_mask_iou_of_shifted_squares():
    a, b = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    a[:, :4, :4], b[:, :4, 2:6] = 0.9, 0.51
    b[:, 6:] = 0.5  # exactly half is not foreground
    image = torch.ones(1, 3, 8, 8)
    assert mask_iou(Views(image, a), Views(image, b)).item() == pytest.approx(8 / 24)


def halves(left: float, right: float, size: int = 16) -> torch.Tensor:
    """(1, size, size) with one value in the left half and one in the right."""
    return torch.cat([torch.full((1, size, size // 2), float(value)) for value in (left, right)], dim=-1)


def test_depth_error_counts_only_where_both_masks_are():
    image, ones = torch.ones(1, 3, 16, 16), torch.ones(1, 16, 16)
    views = Views(image, halves(1, 1), halves(2.5, 9.0))
    truth = Views(image, halves(1, 0), 2.1 * ones)
    assert depth_error(views, truth).item() == pytest.approx(0.4)
    assert depth_error(views, Views(image, 0 * ones, ones)).isnan().all()
    assert "depth_error" in pixel_metrics(views, truth) and "depth_error" not in pixel_metrics(
        views, Views(image, ones)
    )
    with pytest.raises(ValueError, match="needs the depths"):
        depth_error(views, Views(image, ones))
    with pytest.raises(ValueError, match="do not belong"):
        Views(image, ones, torch.ones(1, 4, 4))
    assert views[:1].depths is not None


def test_colour_error_of_known_pairs():
    """sRGB white is L 100, black L 0; red is (53.24, 80.09, 67.20) in CIELAB under D65 (Lindbloom)."""
    mask = torch.ones(1, 16, 16)

    def plain(color: tuple[float, float, float]) -> Views:
        return Views(torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 16, 16), mask)

    black, white, red = plain((0.0, 0.0, 0.0)), plain((1.0, 1.0, 1.0)), plain((1.0, 0.0, 0.0))
    assert color_error(black, white).item() == pytest.approx(100, abs=0.05)
    assert color_error(red, black).item() == pytest.approx(math.hypot(53.24, 80.09, 67.20), abs=0.1)
    assert chroma_excess(red, black).item() == pytest.approx(math.hypot(80.09, 67.20), abs=0.1)
    assert chroma_excess(black, red) == -chroma_excess(red, black)
    half = Views(torch.cat([red.images[..., :8], white.images[..., 8:]], dim=-1), halves(1, 0))
    assert color_error(half, red).item() == 0, "what only one of them covers does not count"


def gaussian_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of one channel as Wang et al. define it, by explicit 11x11 windows."""
    axis = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            p, q = (image[y - 5 : y + 6, x - 5 : x + 6] for image in (a, b))
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
            cov = (window * p * q).sum() - mp * mq
            values.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


def test_ssim_equals_the_definition():
    views, truth = random_views(4)[:1], random_views(5)[:1]
    pairs = zip(views.images[0].double().numpy(), truth.images[0].double().numpy(), strict=True)
    assert ssim(views, truth).item() == pytest.approx(np.mean([gaussian_ssim(a, b) for a, b in pairs]), abs=1e-5)


def test_perfect_views_get_the_best_of_everything():
    truth = random_views(6)
    values = {name: value.mean().item() for name, value in pixel_metrics(truth, truth).items()}
    best = {"psnr": 100, "psnr_fg": 100, "ssim": 1, "mask_iou": 1, "color_error": 0, "chroma_excess": 0}
    assert values == pytest.approx(best, abs=1e-4)


def test_baselines():
    truth = random_views(7)
    blank, mean, one_color = (make(truth) for make in (blank_baseline, mean_baseline, silhouette_baseline))
    assert (blank.images == 1).all() and not blank.foreground.any()
    assert torch.equal(mean.images[0], mean.images[3])
    # No constant image is closer to all views than their mean.
    assert ((mean.images - truth.images) ** 2).mean() < ((blank.images - truth.images) ** 2).mean()
    assert torch.equal(one_color.foreground, truth.foreground)
    inside = one_color.images.permute(0, 2, 3, 1)[truth.foreground]
    colors = truth.images.permute(0, 2, 3, 1)[truth.foreground]
    assert torch.allclose(inside, colors.mean(dim=0).expand_as(inside), atol=1e-5)


def test_views_refuse_what_does_not_belong():
    with pytest.raises(ValueError, match="do not belong"):
        Views(torch.ones(2, 3, 8, 8), torch.ones(3, 8, 8))
