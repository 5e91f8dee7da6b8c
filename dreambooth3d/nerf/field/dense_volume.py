"""A dense volume of logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.encoding import LOGITS, Encoding

VOLUME_GAIN = 10.0
"""Logits per unit of a dense volume's parameter: it lets one learning rate serve the volume and the hash grid, whose
network amplifies each step in a similar way."""


class DenseVolume(Encoding):
    """Density and colour logits on a regular grid, interpolated trilinearly; cheap on a CPU, no network behind it.

    The volume is the sum of a coarse-to-fine pyramid (each level with half the resolution of the next), so that a
    gradient at one voxel also moves its surroundings. It is summed once per call; points cost one `grid_sample`.
    """

    holds_density = True
    pyramid_levels = 3

    def __init__(self, config: FieldConfig, logits: int = LOGITS) -> None:
        super().__init__()
        self.output_dim = logits
        sizes = [max(2, config.volume_resolution >> level) for level in reversed(range(self.pyramid_levels))]
        self.levels = nn.ParameterList(torch.zeros(1, logits, size, size, size) for size in sizes)
        self.cells = config.volume_resolution - 1

    def volume(self) -> Float[Tensor, "1 logits z y x"]:
        """See `Encoding`."""
        total = self.levels[0]
        for level in list(self.levels)[1:]:
            total = nn.functional.interpolate(total, size=level.shape[2:], mode="trilinear", align_corners=True) + level
        return total * VOLUME_GAIN

    def add_density(self, logits_at: Callable[[Tensor], Tensor]) -> None:
        """See `Encoding`; at the vertices of the finest level."""
        finest = self.levels[-1]
        axis = torch.linspace(-1, 1, finest.shape[-1], device=finest.device)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        points = torch.stack([x, y, z], dim=-1).view(-1, 3)
        with torch.no_grad():
            finest[0, 0] += logits_at(points).view(finest.shape[2:]) / VOLUME_GAIN

    def forward(self, points: Float[Tensor, "n 3"], channels: int = LOGITS) -> Float[Tensor, "n {channels}"]:
        """The first `channels` logits (n, channels) of points (n, 3); differentiable once."""
        values = nn.functional.grid_sample(
            self.volume()[:, :channels], points.view(1, -1, 1, 1, 3), align_corners=True, padding_mode="border"
        )
        return values.view(channels, -1).t()

    def make_head(self, width: int, logits: int = LOGITS) -> nn.Module:
        """Nothing: the features are logits."""
        return nn.Identity()

    def level_gradients(self) -> list[Tensor]:
        """See `Encoding`; the levels of the pyramid."""
        return [level.grad for level in self.levels if level.grad is not None]

    @property
    def detail_size(self) -> float:
        """Width of a voxel in world units."""
        return 2.0 / self.cells

    @property
    def normal_step(self) -> float:
        """A voxel: within one, differences are those of the interpolation."""
        return self.detail_size
