"""Random numbers and noise, drawn on the device, so that a batch of composed pictures costs no time of the host."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

STRAND = 9
"""Length in pixels of the strands of `Draws.strands`."""


class Draws:
    """Draws for `count` pictures at a time, on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def uniform(self, *shape: int) -> Tensor:
        """Of this shape, in [0, 1)."""
        return torch.rand(*shape, device=self.device)

    def between(self, count: int, low: float, high: float) -> Float[Tensor, " {count}"]:
        """Evenly in [low, high)."""
        return low + (high - low) * self.uniform(count)

    def amounts(self, count: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "{count} 1 1 1"]:
        """The same, to be multiplied with pictures."""
        return self.between(count, low, high).view(-1, 1, 1, 1)

    def chance(self, count: int, share: float) -> Float[Tensor, "{count} 1 1 1"]:
        """1 with this probability, else 0."""
        return (self.uniform(count) < share).float().view(-1, 1, 1, 1)

    def colours(self, count: int) -> Float[Tensor, "{count} 3 1 1"]:
        """Any colours, pale and greyish ones more often."""
        vivid = self.uniform(count, 3, 1, 1)
        return torch.lerp(vivid.mean(1, keepdim=True), vivid, self.amounts(count))

    def smooth(self, count: int, channels: int, cells: int, size: int) -> Float[Tensor, "{count} {channels} size size"]:
        """Smooth noise of mean 0 and about unit variance, with `cells` hills a side."""
        coarse = torch.randn(count, channels, cells, cells, device=self.device)
        return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)

    def strands(self, count: int, size: int) -> Float[Tensor, "{count} 2 size size"]:
        """Vectors of about unit variance that are drawn out along their own directions, as hairs."""
        white = torch.randn(count, 2, size, size, device=self.device)
        half = STRAND // 2
        along_x = F.avg_pool2d(white[:, :1], (1, STRAND), 1, (0, half))
        along_y = F.avg_pool2d(white[:, 1:], (STRAND, 1), 1, (half, 0))
        angle = self.between(count, -torch.pi, torch.pi)
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
        grid = F.affine_grid(F.pad(turn, (0, 1)), [count, 2, size, size], align_corners=False)
        hairs = torch.cat([along_x, along_y], dim=1)
        turned = F.grid_sample(hairs, grid, align_corners=False, padding_mode="reflection")
        return STRAND**0.5 * torch.einsum("nji,njhw->nihw", turn, turned)


def blurred(images: Float[Tensor, "n c h w"], pixels: int) -> Float[Tensor, "n c h w"]:
    """The mean of an odd number of pixels around each."""
    return F.avg_pool2d(images, pixels, 1, pixels // 2, count_include_pad=False)


def coarse(images: Float[Tensor, "n c h w"], pixels: int) -> Float[Tensor, "n c h w"]:
    """As smooth as if it had been taken with pixels that many times as large."""
    return F.interpolate(F.avg_pool2d(images, pixels), size=images.shape[-2:], mode="bilinear", align_corners=False)


def laid_over(ground: Float[Tensor, "n 3 h w"], layer: Float[Tensor, "n 4 h w"]) -> Float[Tensor, "n 3 h w"]:
    """A layer, its colours multiplied by its opacity, before a ground."""
    return ground * (1 - layer[:, 3:]) + layer[:, :3]
