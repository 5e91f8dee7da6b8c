"""A coarse grid that remembers where the field has density, so that empty space is not evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dreambooth3d.transfer import send

DECAY = 0.8
CHUNK = 1 << 18


class OccupancyGrid(nn.Module):
    """Cells over [-1, 1]^3 with a running maximum of their density; all buffers, so that they travel with the field.

    A new grid counts every cell as occupied. After an update a cell counts as occupied if it or one of its 26
    neighbours is dense enough: the margin lets a surface grow.

    Attributes:
        density: (x, y, z) decaying maximum of the densities seen in each cell, in inverse world units.
        occupied: (x, y, z) bool.
        changed: moment of the last change on CUDA, for streams that only wait for it; None before the first.
    """

    density: Float[Tensor, "x y z"]
    occupied: Bool[Tensor, "x y z"]

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.changed: torch.cuda.Event | None = None
        self.register_buffer("density", torch.zeros(resolution, resolution, resolution))
        self.register_buffer("occupied", torch.ones(resolution, resolution, resolution, dtype=torch.bool))

    def reset(self) -> None:
        """Forget what was seen: every cell counts as occupied until the next update."""
        self.density.zero_()
        self.occupied.fill_(True)
        self.mark_changed()

    def __getstate__(self) -> dict[str, Any]:
        """An event of a device cannot be copied; a copy of the grid has none until it changes."""
        return self.__dict__ | {"changed": None}

    def mark_changed(self) -> None:
        """Note that what the current stream has been given so far may change the buffers."""
        if self.density.is_cuda:
            self.changed = torch.cuda.Event()
            self.changed.record(torch.cuda.current_stream(self.density.device))

    @torch.no_grad()
    def update(self, density_at: Callable[[Tensor], Tensor], threshold: float, generator: torch.Generator) -> None:
        """Look at one random point per cell.

        Args:
            density_at: density (n,) of points (n, 3).
            threshold: opacity across a cell below which it counts as empty.
            generator: source of randomness, on the CPU.
        """
        jitter = send(torch.rand(self.resolution**3, 3, generator=generator), self.density.device)
        points = (self._cells() + jitter) * (2.0 / self.resolution) - 1.0
        seen = torch.cat([density_at(part) for part in points.split(CHUNK)]).view_as(self.density)
        torch.maximum(self.density * DECAY, seen, out=self.density)
        opacity = 1 - torch.exp(-self.density * (2.0 / self.resolution))
        dense = (opacity > threshold).float()[None, None]
        self.occupied.copy_(nn.functional.max_pool3d(dense, 3, stride=1, padding=1)[0, 0] > 0)
        self.mark_changed()

    def _cells(self) -> Tensor:
        """(resolution^3, 3) lower corner of each cell in cells."""
        axis = torch.arange(self.resolution, device=self.density.device)
        return torch.cartesian_prod(axis, axis, axis)

    @torch.no_grad()
    def occupied_along(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        places: Float[Tensor, "rays places"],
    ) -> Bool[Tensor, "rays places"]:
        """(rays, places) whether points on rays (rays, 3), at places (rays, places) along them, lie in occupied cells.

        Axis by axis, as one array of all points is slow to walk.
        """
        cells: Tensor | None = None
        for axis in range(3):
            point = torch.addcmul(origins[:, axis, None], directions[:, axis, None], places)
            cell = point.add_(1).mul_(self.resolution / 2).clamp_(0, self.resolution - 1).int()
            cells = cell if cells is None else cells.mul_(self.resolution).add_(cell)
        assert cells is not None
        return self.occupied.view(-1).index_select(0, cells.view(-1)).view_as(places)
