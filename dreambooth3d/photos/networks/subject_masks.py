"""Where the subject is in each photo of a set: it is what the photos share, the background is what they do not."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.photos.networks.layers import ChannelNorm, ConvBlock, SetAttention, load_int8
from dreambooth3d.photos.networks.weights import WEIGHTS
from dreambooth3d.weights import require_as_shipped

SIZE = 128
"""Pixels per side at which the network looks at photos."""
NEARER = 1.25
"""Side of the window of the second look in terms of the subject's."""
_WIDTHS = (24, 48, 96, 128)
_BLOCKS = (1, 2, 3, 2)
_SET_LAYERS = 2
_FULL_WIDTH = 16


class SubjectMaskNetwork(nn.Module):
    """A U-Net over single photos, with attention among all photos of the set at its two coarsest levels."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, last = _WIDTHS
        self.full = nn.Conv2d(4, _FULL_WIDTH, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 2, stride=2)
            for before, after in zip((_FULL_WIDTH, first, second, third), _WIDTHS, strict=True)
        )
        self.encode = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width) for _ in range(count)))
            for width, count in zip(_WIDTHS, _BLOCKS, strict=True)
        )
        self.share = nn.ModuleList(SetAttention(last, (SIZE // 16) ** 2) for _ in range(_SET_LAYERS))
        self.share_fine = SetAttention(third, (SIZE // 8) ** 2)
        below = (_FULL_WIDTH, first, second, third)
        self.up = nn.ModuleList(nn.Conv2d(after, before, 1) for before, after in zip(below, _WIDTHS, strict=True))
        self.decode = nn.ModuleList(
            nn.Sequential(ChannelNorm(2 * width), nn.Conv2d(2 * width, width, 1), ConvBlock(width)) for width in below
        )
        self.mask = nn.Conv2d(_FULL_WIDTH, 1, 3, padding=1)
        self.sure = nn.Sequential(nn.Linear(last + 3, 32), nn.GELU(), nn.Linear(32, 1))

    @staticmethod
    def load(folder: Path) -> SubjectMaskNetwork:
        """The trained network, on the CPU.

        Raises:
            BaseModelError: the bundled weights are not as they were shipped.
        """
        require_as_shipped(folder)
        return load_int8(SubjectMaskNetwork(), folder / WEIGHTS)

    def forward(
        self, images: Float[Tensor, "sets n 3 size size"], frame: Float[Tensor, "sets n size size"]
    ) -> tuple[Float[Tensor, "sets n size size"], Float[Tensor, "sets n"]]:
        """Logits of the masks, and of the intersection over union that each is expected to have with the truth.

        Args:
            images: in [0, 1], `SIZE` pixels a side.
            frame: 1 inside the photo, 0 where it was padded.
        """
        sets, photos = images.shape[:2]
        seen = torch.cat([2 * images - 1, frame[:, :, None]], dim=2).flatten(0, 1)
        levels = [self.full(seen)]
        for down, encode in zip(self.down, self.encode, strict=True):
            levels.append(encode(down(levels[-1])))
        features = levels.pop()
        for layer in self.share:
            features = _among(layer, features, sets)
        pooled = features.mean((2, 3))
        for index in reversed(range(len(levels))):
            wide = F.interpolate(self.up[index](features), scale_factor=2.0, mode="bilinear", align_corners=False)
            features = self.decode[index](torch.cat([wide, levels[index]], dim=1))
            if index == 3:
                features = _among(self.share_fine, features, sets)
        logits = self.mask(features)[:, 0]
        share = logits.detach().sigmoid()
        doubt = (4 * share * (1 - share)).mean((1, 2))
        figures = torch.stack([share.mean((1, 2)), doubt, doubt / share.mean((1, 2)).clamp(min=1e-3)], dim=1)
        sure = self.sure(torch.cat([pooled.detach(), figures], dim=1))[:, 0]
        return logits.view(sets, photos, *logits.shape[1:]), sure.view(sets, photos)

    @torch.no_grad()
    def masks(
        self, images: Float[Tensor, "n 3 side side"], frame: Float[Tensor, "n side side"]
    ) -> tuple[Float[Tensor, "n side side"], Float[Tensor, " n"]]:
        """Masks in [0, 1] of one set's photos, and the intersection over union that each is expected to have.

        The network looks twice: at the photos as they are, then closer at where it has seen the subject.

        Args:
            images: in [0, 1], of any size.
            frame: 1 inside the photo, 0 where it was padded.
        """
        side = images.shape[-1]
        far, sure = self._look(_resized(images), _resized(frame[:, None])[:, 0])
        far = F.interpolate(far[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
        middle, half = outline_box(far.sigmoid())
        half = (NEARER * half).clamp(0.2, 1.0)
        seen = window(torch.cat([images, frame[:, None]], dim=1), middle, half, side)
        near, sure_near = self._look(_resized(seen[:, :3]), _resized(seen[:, 3:])[:, 0])
        near = window(near[:, None], -middle / half[:, None], 1 / half, side)[:, 0]
        inside = window(torch.ones_like(frame)[:, None], -middle / half[:, None], 1 / half, side)[:, 0] > 0.5
        logits = torch.where(inside, (far + near) / 2, far)
        return logits.sigmoid() * frame, torch.minimum(sure, sure_near)

    def _look(self, images: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, s, s) of masks, and (n,) the expected overlap: the mean of the photos and their mirror images."""
        frame = (frame > 0.5).to(images)
        both = torch.stack([images, images.flip(-1)]), torch.stack([frame, frame.flip(-1)])
        logits, sure = self(*both)
        return (logits[0] + logits[1].flip(-1)) / 2, sure.sigmoid().mean(0)


def outline_box(masks: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Middle (x right, y down) and half of the longer side of the masks' boxes, in halves of the frame."""
    middles, halves = [], []
    for axis in (1, 2):
        seen = masks.amax(dim=axis) > 0.5
        place = (torch.arange(seen.shape[1], device=masks.device) + 0.5) * 2 / seen.shape[1] - 1
        low = torch.where(seen, place, 1.0).amin(1)
        high = torch.where(seen, place, -1.0).amax(1)
        some = seen.any(1)
        middles.append(torch.where(some, (low + high) / 2, 0.0))
        halves.append(torch.where(some, (high - low) / 2, 1.0))
    return torch.stack(middles, dim=1), torch.maximum(*halves).clamp(min=0.05)


def _resized(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(SIZE, SIZE), mode="area")


def window(
    images: Float[Tensor, "n c h w"], middle: Float[Tensor, "n 2"], half: Float[Tensor, " n"], side: int
) -> Float[Tensor, "n c {side} {side}"]:
    """The square windows of images around `middle`, in units of `outline_box`; 0 outside of the images."""
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = half
    theta[:, :, 2] = middle
    grid = F.affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _among(layer: nn.Module, features: Tensor, sets: int) -> Tensor:
    """Attention among the photos of each set; features (sets * n, width, h, w), the same shape."""
    count, width, height, wide = features.shape
    tokens = features.flatten(2).transpose(1, 2).view(sets, count // sets, height * wide, width)
    return layer(tokens).flatten(0, 1).transpose(1, 2).reshape(features.shape)
