"""Where a field's features come from: a multi-resolution hash grid or a dense volume.

The hash grid has three implementations with one layout of the parameters: plain PyTorch (`HashGrid`), tiny-cuda-nn
(`TcnnGrid`) and Triton kernels (`triton_grid.TritonGrid`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import ConfigError, gist

if TYPE_CHECKING:
    from dreambooth3d.nerf.field.triton_grid import TritonGrid

logger = logging.getLogger(__name__)

HASH_PRIMES = (1, 2654435761, 805459861)
CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1))
INITIAL_FEATURE_RANGE = 1e-4
REMEDIES = {
    "tcnn": "Build tinycudann for this machine's GPU",
    "triton": "Install triton in the version that torch asks for",
}
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


def initial_table(config: FieldConfig) -> nn.Parameter:
    """A fresh flat table of all levels, level by level, an entry's features side by side."""
    entries = sum(size for _, _, size in hash_levels(config))
    table = torch.empty(entries * config.features_per_level)
    return nn.Parameter(table.uniform_(-INITIAL_FEATURE_RANGE, INITIAL_FEATURE_RANGE))


class HashGrid(nn.Module):
    """Multi-resolution hash encoding in plain PyTorch.

    Source: Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3 and eq. 4.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.features = config.features_per_level
        self.levels = hash_levels(config)
        self.output_dim = self.features * len(self.levels)
        # The key `grid.params` is that of all implementations: a field moves freely between them.
        self.grid = nn.ParameterDict({"params": initial_table(config)})
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
    """The same encoding by tiny-cuda-nn; CUDA only, and only where tinycudann imports.

    Args:
        config: the grid.
        dtype: of the features, and of what is gathered for them.
    """

    def __init__(self, config: FieldConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        import tinycudann

        settings = {
            "otype": "HashGrid",
            "n_levels": config.levels,
            "n_features_per_level": config.features_per_level,
            "log2_hashmap_size": config.log2_table_size,
            "base_resolution": config.base_resolution,
            "per_level_scale": config.level_scale,
        }
        self.grid = tinycudann.Encoding(3, settings, dtype=dtype)
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


Encoder: TypeAlias = "HashGrid | TcnnGrid | TritonGrid | DenseVolume"


def make_encoding(config: FieldConfig, device: torch.device | str = "cpu") -> Encoder:
    """The encoding that `config` asks for, on `device`.

    A hash grid with `implementation: auto` is on CUDA the first of triton, tcnn and torch that works there, with one
    log line that names it and says why the ones before it were passed over; on a CPU it is torch. It never fails.

    Raises:
        ConfigError: `tcnn` or `triton` was asked for and cannot be used.
    """
    device = torch.device(device)
    if config.encoding == "dense":
        return DenseVolume(config).to(device)
    if config.implementation == "torch" or (config.implementation == "auto" and device.type != "cuda"):
        return HashGrid(config).to(device)
    if config.implementation == "auto":
        return _first_that_works(config, device)
    try:
        return _on_gpu(config.implementation, config, device)
    except ConfigError:
        raise
    except Exception as error:  # a library built for another card can raise anything
        raise ConfigError(
            f"field.implementation={config.implementation} cannot be used here: {gist(error).rstrip('.')}. "
            f"{REMEDIES[config.implementation]}, or set field.implementation=auto."
        ) from error


def _first_that_works(config: FieldConfig, device: torch.device) -> Encoder:
    """A hash grid for a CUDA device by the fastest implementation that works, and a log line that says which."""
    errors: dict[str, Exception] = {}
    for name in ("triton", "tcnn"):
        try:
            grid = _on_gpu(name, config, device)
        except Exception as error:  # a library built for another card can raise anything
            errors[name] = error
        else:
            break
    else:
        name, grid = "torch", HashGrid(config).to(device)
    expected = name != "torch" and all(isinstance(error, ModuleNotFoundError) for error in errors.values())
    reasons = "; ".join(f"{passed_over}: {gist(error).rstrip('.')}" for passed_over, error in errors.items())
    level = logging.INFO if expected else logging.WARNING
    logger.log(level, "hash grid by %s (%s)", name, reasons or "the first choice on CUDA")
    return grid


def _on_gpu(name: str, config: FieldConfig, device: torch.device) -> TcnnGrid | TritonGrid:
    """A hash grid by `tcnn` or `triton`, after one trial point, forward and backward, so that it is known to work.

    Raises:
        Exception: whatever the import, the compiler or the trial raises.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        raise RuntimeError("it needs a CUDA device")
    if name == "tcnn":
        grid = TcnnGrid(config).to(device)
    else:
        from dreambooth3d.nerf.field.triton_grid import TritonGrid

        grid = TritonGrid(config).to(device)
    (table,) = grid.parameters()
    with torch.enable_grad():
        torch.autograd.grad(grid(torch.zeros(1, 3, device=table.device)).sum(), table)
    return grid
