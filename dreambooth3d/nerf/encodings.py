"""Where a field's features come from: a multi-resolution hash grid (PyTorch or tiny-cuda-nn) or a dense volume."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dreambooth3d.config import FieldConfig
from dreambooth3d.errors import ConfigError

HASH_PRIMES = (1, 2654435761, 805459861)
CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1))
INITIAL_FEATURE_RANGE = 1e-4
VOLUME_CHANNELS = 4
VOLUME_GAIN = 10.0
"""Logits per unit of a dense volume's parameter: it lets one learning rate serve the volume and the hash grid, whose
network amplifies each step in a similar way."""


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


class HashGrid(nn.Module):
    """Multi-resolution hash encoding in plain PyTorch.

    Source: Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3 and eq. 4.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.features = config.features_per_level
        self.levels = hash_levels(config)
        self.output_dim = self.features * len(self.levels)
        entries = sum(size for _, _, size in self.levels)
        table = torch.empty(entries * self.features).uniform_(-INITIAL_FEATURE_RANGE, INITIAL_FEATURE_RANGE)
        # The key `grid.params` is also the one of `TcnnGrid`: a field moves freely between the two.
        self.grid = nn.ParameterDict({"params": nn.Parameter(table)})
        self.register_buffer("corners", torch.tensor(CORNERS), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """Features (n, levels * features_per_level) of points (n, 3) in [-1, 1]; differentiable in both."""
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


def corner_weights(fraction: Tensor) -> Tensor:
    """(n, 8) trilinear weights, in the order of `CORNERS`, at positions (n, 3) in [0, 1] within a cell."""
    x, y, z = torch.stack([1 - fraction, fraction], dim=-1).unbind(1)  # (n, 2) each
    return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).flatten(1)


class TcnnGrid(nn.Module):
    """The same encoding by tiny-cuda-nn; CUDA only.

    Raises:
        ConfigError: tinycudann is not installed, or CUDA is missing.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        if not tcnn_available():
            raise ConfigError(
                "field.encoding=tcnn: tiny-cuda-nn or CUDA is missing. Install tinycudann, or set field.encoding=auto."
            )
        import tinycudann

        settings = {
            "otype": "HashGrid",
            "n_levels": config.levels,
            "n_features_per_level": config.features_per_level,
            "log2_hashmap_size": config.log2_table_size,
            "base_resolution": config.base_resolution,
            "per_level_scale": config.level_scale,
        }
        self.grid = tinycudann.Encoding(3, settings, dtype=torch.float32)
        self.output_dim = config.levels * config.features_per_level

    def forward(self, points: Tensor) -> Tensor:
        """Features (n, levels * features_per_level) of points (n, 3) in [-1, 1]."""
        return self.grid((points + 1) / 2)


class DenseVolume(nn.Module):
    """Density and colour logits on a regular grid, interpolated trilinearly; cheap on a CPU, no network behind it.

    The volume is the sum of a coarse-to-fine pyramid (each level with half the resolution of the next), so that a
    gradient at one voxel also moves its surroundings. It is summed once per call; points cost one `grid_sample`.
    """

    output_dim = VOLUME_CHANNELS
    pyramid_levels = 3

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        sizes = [max(2, config.volume_resolution >> level) for level in reversed(range(self.pyramid_levels))]
        self.levels = nn.ParameterList(torch.zeros(1, VOLUME_CHANNELS, size, size, size) for size in sizes)

    def volume(self) -> Tensor:
        """(1, 4, z, y, x) logits at the vertices of the grid over [-1, 1]^3: density, then colour."""
        total = self.levels[0]
        for level in list(self.levels)[1:]:
            total = nn.functional.interpolate(total, size=level.shape[2:], mode="trilinear", align_corners=True) + level
        return total * VOLUME_GAIN

    def add_density(self, logits_at: Callable[[Tensor], Tensor]) -> None:
        """Add density logits, a function of points (n, 3), at the vertices of the finest level."""
        finest = self.levels[-1]
        axis = torch.linspace(-1, 1, finest.shape[-1], device=finest.device)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        points = torch.stack([x, y, z], dim=-1).view(-1, 3)
        with torch.no_grad():
            finest[0, 0] += logits_at(points).view(finest.shape[2:]) / VOLUME_GAIN

    def forward(self, points: Tensor, channels: int = VOLUME_CHANNELS) -> Tensor:
        """The first `channels` logits (n, channels) of points (n, 3) in [-1, 1]; differentiable once."""
        values = nn.functional.grid_sample(
            self.volume()[:, :channels], points.view(1, -1, 1, 1, 3), align_corners=True, padding_mode="border"
        )
        return values.view(channels, -1).t()


Encoder = HashGrid | TcnnGrid | DenseVolume


def tcnn_available() -> bool:
    """Whether tiny-cuda-nn can be used here."""
    return torch.cuda.is_available() and importlib.util.find_spec("tinycudann") is not None


def make_encoding(config: FieldConfig, device: torch.device | str = "cpu") -> Encoder:
    """The encoding that `config.encoding` asks for; `auto` is a hash grid, on CUDA by tiny-cuda-nn if it is installed.

    Raises:
        ConfigError: `tcnn` was asked for and is not available.
    """
    device = torch.device(device)
    if config.encoding == "dense":
        return DenseVolume(config).to(device)
    if config.encoding == "tcnn" or (config.encoding == "auto" and device.type == "cuda" and tcnn_available()):
        return TcnnGrid(config).to(device)
    return HashGrid(config).to(device)
