"""A subject of coloured balls that looks different from every side; `Field`'s interface for rendering."""

from __future__ import annotations

import torch
from torch import Tensor

from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid

CENTRES = torch.tensor([[0, 0, 0], [0.45, 0, 0.1], [0, 0.35, 0.2], [-0.2, -0.3, -0.3], [0, 0, 0.5]])
RADII = torch.tensor([0.4, 0.2, 0.22, 0.25, 0.18])
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9], [0.1, 0.8, 0.2], [0.9, 0.8, 0.1], [0.1, 0.1, 0.1]])


class Blobs:
    """Five balls, each of one colour."""

    device, render = Field.device, Field.render

    def __init__(self) -> None:
        self.occupancy = OccupancyGrid(16)
        self.occupancy.update(self.density, 0.01, torch.Generator().manual_seed(0))

    def density(self, points: Tensor) -> Tensor:
        """(n,) density of points (n, 3)."""
        return self.density_and_color(points)[0]

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (n,) and colour (n, 3) of points (n, 3)."""
        inside = (RADII - (points[:, None] - CENTRES).norm(dim=-1)).max(dim=1)
        return (5000 * inside.values).clamp(0, 200), COLOURS[inside.indices]


def seen_from(rotation: Tensor, position: Tensor, fov_y_deg: float, size: int) -> tuple[Tensor, Tensor]:
    """Image (3, size, size) on white and mask (size, size) of the solid balls, by ray-sphere intersection.

    Args:
        rotation: (3, 3) from the camera's frame (right, up, backward) to the world.
        position: (3,) of the camera.
    """
    fine = 4 * size
    along = (torch.arange(fine) + 0.5) * 2 / fine - 1
    y, x = torch.meshgrid(-along, along, indexing="ij")
    half = torch.tan(torch.deg2rad(torch.tensor(fov_y_deg)) / 2)
    local = torch.stack([half * x, half * y, -torch.ones_like(x)], dim=-1)
    directions = torch.nn.functional.normalize(local @ rotation.T, dim=-1)
    towards = CENTRES - position
    closest = directions @ towards.T
    root = closest.square() - towards.square().sum(-1) + RADII.square()
    distance = torch.where(root > 0, closest - root.clamp(min=0).sqrt(), torch.inf)
    nearest = distance.min(dim=-1)
    hit = nearest.values.isfinite()
    image = torch.where(hit[..., None], COLOURS[nearest.indices], torch.ones(3)).permute(2, 0, 1)
    both = torch.nn.functional.avg_pool2d(torch.cat([image, hit[None].float()])[None], 4)[0]
    return both[:3], both[3]
