"""What the networks are made of: convolutional blocks for each photo, attention among all photos of a set."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.weights import no_longer_as_shipped

INT8_MAX = 127.0
HEAD_WIDTH = 32
_SCALE = ".scale"
Network = TypeVar("Network", bound=nn.Module)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (n, channels, height, width)."""

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ConvBlock(nn.Module):
    """A residual block: depthwise 5x5 convolution, then a small network at each pixel.

    Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022.
    """

    def __init__(self, width: int, expansion: int = 2) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = ChannelNorm(width)
        self.wide = nn.Conv2d(width, expansion * width, 1)
        self.narrow = nn.Conv2d(expansion * width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(n, width, h, w), the same shape."""
        return features + self.narrow(F.gelu(self.wide(self.norm(self.spatial(features)))))


class SetAttention(nn.Module):
    """A transformer layer in which each place of each photo looks at all places of all photos of its set."""

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.position = nn.Parameter(0.02 * torch.randn(places, width))
        self.norm, self.norm_wide = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.own = nn.Parameter(torch.zeros(self.heads))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, features: Float[Tensor, "sets n places width"]) -> Float[Tensor, "sets n places width"]:
        """Attention among the n * places tokens of each set; a learned bias tells a photo's own places from others'."""
        sets, photos, places, width = features.shape
        asked = self.ask(self.norm(features + self.position)).view(sets, photos * places, 3, self.heads, HEAD_WIDTH)
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        owner = torch.arange(photos, device=features.device).repeat_interleave(places)
        bias = self.own[:, None, None] * (owner[:, None] == owner[None])
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype)[None])
        features = features + self.answer(mixed.transpose(1, 2).reshape(sets, photos, places, width))
        return features + self.narrow(F.gelu(self.wide(self.norm_wide(features))))


def save_int8(module: nn.Module, path: Path) -> None:
    """Write a network's weights: matrices and kernels as 8-bit integers with a scale per output channel."""
    tensors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        if value.dim() < 2:
            tensors[name] = value.half().contiguous()
            continue
        scale = value.flatten(1).abs().amax(1).clamp(min=1e-8) / INT8_MAX
        shape = (-1, *[1] * (value.dim() - 1))
        tensors[name] = (value / scale.view(shape)).round().to(torch.int8).contiguous()
        tensors[name + _SCALE] = scale
    path.parent.mkdir(parents=True, exist_ok=True)
    no_longer_as_shipped(path.parent)
    save_file({name: value.cpu() for name, value in tensors.items()}, path)


def load_int8(module: Network, path: Path) -> Network:
    """The network with the weights that `save_int8` has written, up to rounding; frozen."""
    tensors = load_file(path)
    state = {}
    for name, value in tensors.items():
        if name.endswith(_SCALE):
            continue
        scale = tensors.get(name + _SCALE)
        state[name] = value.float() if scale is None else value.float() * scale.view(-1, *[1] * (value.dim() - 1))
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)
