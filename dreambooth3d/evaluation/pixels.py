"""Pixel metrics between rendered and true views, per view and unaligned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from skimage.color import rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor

MASK_THRESHOLD = 0.5
# A perfect match gets 100 dB instead of infinity, so that means stay finite.
_MIN_SQUARED_ERROR = 1e-10


@dataclass(frozen=True)
class Views:
    """Images of a subject on white.

    Attributes:
        images: (n, 3, h, w) in [0, 1].
        masks: (n, h, w) opacity in [0, 1].
        depths: (n, h, w) distance along the ray in world units, which counts where the subject is; None if unknown.
    """

    images: Float[Tensor, "n 3 height width"]
    masks: Float[Tensor, "_ _ _"]
    depths: Float[Tensor, "_ _ _"] | None = None

    def __post_init__(self) -> None:
        if self.depths is not None and self.depths.shape != self.masks.shape:
            raise ValueError(f"depths {tuple(self.depths.shape)} and masks {tuple(self.masks.shape)} do not belong")
        if self.images.shape[0] != self.masks.shape[0] or self.images.shape[-2:] != self.masks.shape[-2:]:
            raise ValueError(f"images {tuple(self.images.shape)} and masks {tuple(self.masks.shape)} do not belong")

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: slice | list[int]) -> Views:
        return Views(self.images[index], self.masks[index], None if self.depths is None else self.depths[index])

    @property
    def foreground(self) -> Bool[Tensor, "n height width"]:
        """(n, h, w) bool: where the subject covers more than half of a pixel."""
        return self.masks > MASK_THRESHOLD

    @cached_property
    def lab(self) -> Float[Tensor, "n 3 height width"]:
        """(n, 3, h, w) the images in CIELAB (D65)."""
        return torch.from_numpy(rgb2lab(self.images.double().numpy(), channel_axis=1)).float()


def _decibels(squared_error: Tensor) -> Tensor:
    return -10.0 * torch.log10(squared_error.clamp(min=_MIN_SQUARED_ERROR))


def psnr(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) peak signal-to-noise ratio in dB over the whole frame."""
    return _decibels((views.images - truth.images).square().flatten(1).mean(dim=1))


def psnr_fg(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) PSNR in dB over the pixels in either mask, unaligned; NaN where both masks are empty."""
    union = (views.foreground | truth.foreground).flatten(1).float()
    squared = (views.images - truth.images).square().mean(dim=1).flatten(1)
    error = (squared * union).sum(dim=1) / union.sum(dim=1)
    return torch.where(union.sum(dim=1) > 0, _decibels(error), torch.nan)


def ssim(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) structural similarity over the whole frame, with the 11-pixel Gaussian window of Wang et al. (2004)."""
    return torch.tensor(
        [
            structural_similarity(
                np.asarray(a), np.asarray(b), channel_axis=0, data_range=1.0,
                gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            )
            for a, b in zip(views.images.double().numpy(), truth.images.double().numpy(), strict=True)
        ],
        dtype=torch.float32,
    )  # fmt: skip


def mask_iou(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) intersection over union of the masks; 1 where both are empty."""
    both = (views.foreground & truth.foreground).flatten(1).sum(dim=1)
    either = (views.foreground | truth.foreground).flatten(1).sum(dim=1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def depth_error(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) mean absolute difference in depth in world units, over the pixels in both masks; NaN where there are none.

    Raises:
        ValueError: the depths of either are unknown.
    """
    if views.depths is None or truth.depths is None:
        raise ValueError("depth_error needs the depths of views and truth")
    return _mean_over_both((views.depths - truth.depths).abs(), views, truth)


def color_error(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) mean colour difference (CIE 1976 delta E), over the pixels in both masks; NaN where there are none."""
    return _mean_over_both((views.lab - truth.lab).norm(dim=1), views, truth)


def chroma_excess(views: Views, truth: Views) -> Float[Tensor, " n"]:
    """(n,) mean CIELAB chroma beyond that of the truth, over the pixels in both masks; NaN where there are none.

    Positive where colours are over-saturated, as score distillation with a large guidance scale makes them.
    """
    chroma, true_chroma = (each.lab[:, 1:].norm(dim=1) for each in (views, truth))
    return _mean_over_both(chroma - true_chroma, views, truth)


def _mean_over_both(values: Tensor, views: Views, truth: Views) -> Tensor:
    """(n,) mean of values (n, h, w) over the pixels in both masks; NaN where there are none."""
    both = (views.foreground & truth.foreground).flatten(1)
    return torch.where(both, values.flatten(1), torch.nan).nanmean(dim=1)


def pixel_metrics(views: Views, truth: Views) -> dict[str, Float[Tensor, " n"]]:
    """All pixel metrics by name, each (n,); without that of depth where depths are unknown."""
    known = views.depths is not None and truth.depths is not None
    return {name: metric(views, truth) for name, metric in PIXEL_METRICS.items() if known or name != "depth_error"}


PIXEL_METRICS = {
    "psnr": psnr,
    "psnr_fg": psnr_fg,
    "ssim": ssim,
    "mask_iou": mask_iou,
    "depth_error": depth_error,
    "color_error": color_error,
    "chroma_excess": chroma_excess,
}


def blank_baseline(truth: Views) -> Views:
    """White frames with empty masks."""
    return Views(torch.ones_like(truth.images), torch.zeros_like(truth.masks))


def mean_baseline(truth: Views) -> Views:
    """The mean of all true views in place of each, with the mean of all true masks as its mask."""
    return Views(
        truth.images.mean(dim=0, keepdim=True).expand_as(truth.images),
        truth.masks.mean(dim=0, keepdim=True).expand_as(truth.masks),
    )


def silhouette_baseline(truth: Views) -> Views:
    """Every true silhouette filled with one colour, the mean over the foreground of all views."""
    weight = truth.foreground[:, None].float()
    color = (truth.images * weight).sum(dim=(0, 2, 3)) / weight.sum().clamp(min=1)
    opacity = truth.masks[:, None]
    return Views(opacity * color[:, None, None] + (1 - opacity), truth.masks)


BASELINES = {"blank": blank_baseline, "mean": mean_baseline, "silhouette": silhouette_baseline}
