"""From where a subject is seen: for each pair of photos how far the second one's camera is around from the first's.

Only where silhouettes and colours leave a choice does its opinion count; it is a prior, not a measurement.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.photos.networks.layers import ConvBlock, SetAttention, load_int8
from dreambooth3d.photos.networks.subject_masks import outline_box, window
from dreambooth3d.photos.networks.weights import WEIGHTS
from dreambooth3d.weights import require_as_shipped

SIZE = 64
"""Pixels per side of the subject's cut-out."""
BINS = 36
BIN_DEG = 360.0 / BINS
ELEVATION_UNIT_DEG = 30.0
MARGIN = 1.15
"""Side of a cut-out in terms of the longer side of the outline's box, in the training with a spread of 6 %."""
_WIDTHS = (32, 64, 96)
_BLOCKS = (1, 2, 2)
_SET_LAYERS = 4


class RelativeViewNetwork(nn.Module):
    """Convolutions over each cut-out, attention among the places of all of them, and a small network for each pair."""

    def __init__(self) -> None:
        super().__init__()
        before = (4, *_WIDTHS[:-1])
        self.encode = nn.ModuleList(
            nn.Sequential(nn.Conv2d(given, width, 2, stride=2), *(ConvBlock(width) for _ in range(count)))
            for given, width, count in zip(before, _WIDTHS, _BLOCKS, strict=True)
        )
        last = _WIDTHS[-1]
        self.share = nn.ModuleList(SetAttention(last, (SIZE // 8) ** 2) for _ in range(_SET_LAYERS))
        self.norm = nn.LayerNorm(2 * last)
        self.first, self.second = nn.Linear(2 * last, last), nn.Linear(2 * last, last, bias=False)
        self.pair = nn.Linear(last, BINS)
        self.single = nn.Linear(2 * last, BINS + 1)

    @staticmethod
    def load(folder: Path) -> RelativeViewNetwork:
        """The trained network, on the CPU.

        Raises:
            BaseModelError: the bundled weights are not as they were shipped.
        """
        require_as_shipped(folder)
        return load_int8(RelativeViewNetwork(), folder / WEIGHTS)

    def forward(
        self, cutouts: Float[Tensor, "sets n 4 size size"]
    ) -> tuple[Float[Tensor, "sets n n bins"], Float[Tensor, "sets n bins"], Float[Tensor, "sets n"]]:
        """What the photos of each set say about their cameras.

        Args:
            cutouts: `SIZE` pixels a side: the colours in [0, 1] times the mask, and the mask, the subject's outline in
                the middle and filling most of it.

        Returns:
            logits of the azimuth of photo j's camera minus that of photo i's, at [:, i, j], in bins of `BIN_DEG` around
            0, `BIN_DEG`, ...; logits of each photo's azimuth from the subject's front, in the same bins; elevations in
            degrees.
        """
        sets, photos = cutouts.shape[:2]
        features = cutouts.flatten(0, 1) * 2 - 1
        for encode in self.encode:
            features = encode(features)
        tokens = features.flatten(2).transpose(1, 2).unflatten(0, (sets, photos))
        for layer in self.share:
            tokens = layer(tokens)
        known = self.norm(torch.cat([tokens.mean(2), tokens.amax(2)], dim=-1))
        both = torch.relu(self.first(known)[:, :, None] + self.second(known)[:, None])
        single = self.single(known)
        return self.pair(both), single[..., :BINS], single[..., BINS] * ELEVATION_UNIT_DEG


def centred_cutouts(
    images: Float[Tensor, "n 3 side side"], masks: Float[Tensor, "n side side"], margin: float = MARGIN
) -> Float[Tensor, "n 4 size size"]:
    """What the network looks at: colours in [0, 1] times the mask, and the mask, its box in the middle.

    `margin` is the side of the whole in terms of the longer side of the box.
    """
    layers = torch.cat([images * masks[:, None], masks[:, None]], dim=1)
    middle, half = outline_box(masks)
    return F.avg_pool2d(window(layers, middle, margin * half, 2 * SIZE), 2)
