"""A multi-resolution hash grid, whose implementations share one layout of the parameters.

Plain PyTorch (`HashGrid`), tiny-cuda-nn (`TcnnGrid`) and Triton kernels (`triton_grid.TritonGrid`).
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.encoding import LOGITS, Encoding

HASH_PRIMES = (1, 2654435761, 805459861)
CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1))
INITIAL_FEATURE_RANGE = 1e-4
NORMAL_STEP = 0.01


def hash_levels(config: FieldConfig) -> list[tuple[float, int, int]]:
    """(scale, resolution, entries) of each level.

    A level has `resolution` vertices per side; a coordinate x in [0, 1] falls at `x * scale + 0.5`. Levels that fit
    into the table are stored densely, larger ones are hashed. The layout is meant to be tiny-cuda-nn's, so that weights
    are exchangeable.
    """
    levels = []
    for level in range(config.levels):
        scale = config.base_resolution * config.level_scale**level - 1.0
        resolution = math.ceil(scale) + 1
        dense = math.ceil(resolution**3 / 8) * 8
        levels.append((scale, resolution, min(dense, 1 << config.log2_table_size)))
    return levels


def initial_table(config: FieldConfig) -> nn.Parameter:
    """A fresh flat table of all levels, level by level, an entry's features side by side."""
    entries = sum(size for _, _, size in hash_levels(config))
    table = torch.empty(entries * config.features_per_level)
    return nn.Parameter(table.uniform_(-INITIAL_FEATURE_RANGE, INITIAL_FEATURE_RANGE))


class HashEncoding(Encoding):
    """What the implementations of the hash grid have in common; each has its table under the key `grid.params`.

    Attributes:
        features: per level.
        levels: see `hash_levels`.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.features, self.levels = config.features_per_level, hash_levels(config)
        self.output_dim = self.features * len(self.levels)

    @abstractmethod
    def encode(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n features"]:
        """Features (n, levels * features_per_level) of points (n, 3) in [-1, 1]."""

    def forward(self, points: Float[Tensor, "n 3"], channels: int = LOGITS) -> Float[Tensor, "n features"]:
        """See `Encoding`; all features, whatever the channels."""
        return self.encode(points.clamp(-1, 1))

    def make_head(self, width: int, logits: int = LOGITS) -> nn.Module:
        """A small network."""
        return nn.Sequential(nn.Linear(self.output_dim, width), nn.ReLU(), nn.Linear(width, logits))

    def level_gradients(self) -> list[Tensor]:
        """See `Encoding`; the levels of the table."""
        (table,) = self.parameters()
        if table.grad is None:
            return []
        return [*table.grad.split([size * self.features for *_, size in self.levels])]

    @property
    def detail_size(self) -> float:
        """Width in world units of a cell of the finest level."""
        return 2.0 / self.levels[-1][0]

    @property
    def normal_step(self) -> float:
        """A hundredth, however fine the cells."""
        return NORMAL_STEP


class HashGrid(HashEncoding):
    """Multi-resolution hash encoding in plain PyTorch.

    Source: Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3 and eq. 4.
    """

    corners: Int[Tensor, "8 3"]

    def __init__(self, config: FieldConfig) -> None:
        super().__init__(config)
        # The key `grid.params` is that of all implementations: a field moves freely between them.
        self.grid = nn.ParameterDict({"params": initial_table(config)})
        self.register_buffer("corners", torch.tensor(CORNERS), persistent=False)

    def encode(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n features"]:
        """See `HashEncoding`; differentiable in points and table."""
        table = self.grid["params"].view(-1, self.features)
        unit = (points + 1) / 2
        features, offset = [], 0
        for scale, resolution, size in self.levels:
            position = unit * scale + 0.5
            lower = position.detach().floor()
            index = self._corner_index(lower.long(), resolution, size) + offset
            weight = corner_weights(position - lower)
            entries = table.index_select(0, index.flatten()).view(*index.shape, self.features)
            features.append((entries * weight[..., None]).sum(1))
            offset += size
        return torch.cat(features, dim=-1)

    def _corner_index(self, lower: Tensor, resolution: int, size: int) -> Tensor:
        """(n, 8) table rows within one level of the corners of cells `lower` (n, 3)."""
        x, y, z = (lower[:, None] + self.corners).unbind(-1)
        if resolution**3 <= size:
            return (x + resolution * (y + resolution * z)) % size
        return ((x * HASH_PRIMES[0]) ^ (y * HASH_PRIMES[1]) ^ (z * HASH_PRIMES[2])) & (size - 1)


def corner_weights(fraction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 8"]:
    """(n, 8) trilinear weights, in the order of `CORNERS`, at positions (n, 3) in [0, 1] within a cell."""
    x, y, z = torch.stack([1 - fraction, fraction], dim=-1).unbind(1)  # (n, 2) each
    return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).flatten(1)


class TcnnGrid(HashEncoding):
    """The same encoding by tiny-cuda-nn; CUDA only, and only where tinycudann imports.

    Args:
        config: the grid.
        dtype: of the features, and of what is gathered for them.
    """

    def __init__(self, config: FieldConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config)
        import tinycudann  # pyright: ignore[reportMissingImports]  # built by hand, on few machines

        settings = {
            "otype": "HashGrid",
            "n_levels": config.levels,
            "n_features_per_level": config.features_per_level,
            "log2_hashmap_size": config.log2_table_size,
            "base_resolution": config.base_resolution,
            "per_level_scale": config.level_scale,
        }
        self.grid = tinycudann.Encoding(3, settings, dtype=dtype)

    def encode(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n features"]:
        """See `HashEncoding`."""
        return self.grid((points + 1) / 2)
