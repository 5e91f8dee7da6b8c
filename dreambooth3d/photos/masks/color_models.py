"""Masks drawn sharper by colour: what has the subject's colours in all photos, and not those around it, belongs to it.

As in GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004), subject and background are mixtures of Gaussians in colour,
fitted to a first mask and used to improve it, in turn; the subject's is fitted to the whole set as well. In place of a
graph cut, a guided filter (He, Sun and Tang, "Guided Image Filtering", PAMI 2013) makes neighbours of one colour agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

ROUNDS = 3
GAUSSIANS = 6
MEANS_STEPS = 8
SAMPLES = 4000
SPREAD = 4e-4
"""Added to the variances: colours are in [0, 1]."""
EMPTY_SPREAD = 0.01
FROM_OTHERS = 0.5
"""Prior odds that the subject shows here a colour that it has in the other photos."""
MAX_ODDS = 4.0
"""Largest evidence of a pixel's colour, in natural logarithms."""
RADIUS = 6
EDGE = 3e-4
"""Variance of colours below which neighbours are made to agree."""
CERTAIN = 1e-3


@dataclass(frozen=True)
class ColorModel:
    """A mixture of k Gaussians over colours.

    Attributes:
        weights: (k,) logarithms of their shares.
        means: (k, 3).
        whiten: (k, 3, 3) inverse Cholesky factors of the covariances, transposed.
    """

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k 3"]
    whiten: Float[Tensor, "k 3 3"]

    @staticmethod
    def fit(colors: Float[Tensor, "n 3"], weights: Float[Tensor, " n"], generator: torch.Generator) -> ColorModel:
        """Fit by k-means to colours drawn by their weights."""
        drawn = colors[torch.multinomial(weights + 1e-9, SAMPLES, replacement=True, generator=generator)]
        means = drawn[:GAUSSIANS].clone()
        for _ in range(MEANS_STEPS):
            member, count = _members(drawn, means)
            means = torch.where(count[:, None] > 0, member.T @ drawn / count[:, None].clamp(min=1), means)
        member, count = _members(drawn, means)
        off = drawn[:, None] - means
        covariance = torch.einsum("nk,nki,nkj->kij", member, off, off) / count[:, None, None].clamp(min=1)
        eye = torch.eye(3)
        covariance = torch.where(count[:, None, None] > 5, covariance + SPREAD * eye, EMPTY_SPREAD * eye)
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).transpose(1, 2)
        return ColorModel(torch.log(count / SAMPLES + 1e-9), means, whiten)

    def log_likelihood(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
        """Of each pixel's colour, up to a constant that is the same for all models."""
        colors, scale = image.flatten(1).T, self.whiten.diagonal(dim1=1, dim2=2).log().sum(1)
        apart = torch.baddbmm(-self.means[:, None] @ self.whiten, colors.expand(len(self.means), -1, -1), self.whiten)
        red, green, blue = apart.unbind(-1)
        parts = (self.weights + scale)[:, None] - 0.5 * (red.square() + green.square() + blue.square())
        return parts.logsumexp(0).view(image.shape[1:])


def _members(colors: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """(n, k) 1 for each colour's nearest mean, and (k,) how many there are of each."""
    member = torch.nn.functional.one_hot(torch.cdist(colors, means).argmin(1), len(means)).float()
    return member, member.sum(0)


def sharpen(images: Float[Tensor, "n 3 h w"], masks: Float[Tensor, "n h w"], seed: int = 0) -> Float[Tensor, "n h w"]:
    """Masks in [0, 1] of one subject's photos, improved by colours; the same for the same photos.

    Args:
        images: in [0, 1].
        masks: first masks, in [0, 1].
        seed: of the drawn pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    first, found = torch.logit(masks.clamp(CERTAIN, 1 - CERTAIN)), masks
    for _ in range(ROUNDS):
        everywhere = ColorModel.fit(images.movedim(1, -1).reshape(-1, 3), found.square().flatten(), generator)
        found = torch.stack(
            [
                _improved(image, logits, mask, everywhere, generator)
                for image, logits, mask in zip(images, first, found, strict=True)
            ]
        )
    return found


def _improved(
    image: Tensor, logits: Tensor, mask: Tensor, everywhere: ColorModel, generator: torch.Generator
) -> Tensor:
    """One photo's mask after another round."""
    colors = image.flatten(1).T
    subject = ColorModel.fit(colors, mask.square().flatten(), generator).log_likelihood(image)
    around = ColorModel.fit(colors, (1 - mask).square().flatten(), generator).log_likelihood(image)
    subject = torch.maximum(subject, everywhere.log_likelihood(image) + math.log(FROM_OTHERS))
    odds = (subject - around).clamp(-MAX_ODDS, MAX_ODDS)
    return guided_filter(image, (logits + odds).sigmoid()).clamp(0, 1)


def guided_filter(image: Float[Tensor, "3 h w"], values: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Values that are locally linear in the image's colours, in windows of `RADIUS`."""
    mean, mean_value = _window(image), _window(values[None])[0]
    covariance = _window(image * values) - mean * mean_value
    first, second = torch.triu_indices(3, 3)
    products = _window(image[first] * image[second]) - mean[first] * mean[second]
    products = products + EDGE * (first == second).float()[:, None, None]
    slope = _solved(products, covariance)
    level = mean_value - (slope * mean).sum(0)
    return (_window(slope) * image).sum(0) + _window(level[None])[0]


def _solved(matrix: Float[Tensor, "6 h w"], right: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Solutions of symmetric 3x3 systems, given by their upper triangles, at every pixel: Cramer's rule."""
    xx, xy, xz, yy, yz, zz = matrix
    first, second, third = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    fourth, fifth, last = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * first + xy * second + xz * third
    cofactors = torch.stack([first, second, third, second, fourth, fifth, third, fifth, last])
    rows = cofactors.unflatten(0, (3, 3))
    return (rows * right).sum(1) / determinant


def _window(values: Tensor) -> Tensor:
    """(c, h, w) means in square windows, reflected at the frame.

    Sums of shifted images: to the last digit what `avg_pool2d` gives, in a fourth of its time on a CPU.
    """
    height, width = values.shape[1:]
    padded, size = pad(values[None], (RADIUS,) * 4, mode="reflect")[0], 2 * RADIUS + 1
    columns = padded[:, :height].clone()
    for row in range(1, size):
        columns += padded[:, row : row + height]
    columns /= size
    means = columns[..., :width].clone()
    for column in range(1, size):
        means += columns[..., column : column + width]
    return means.div_(size)
