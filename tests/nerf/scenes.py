"""Known scenes and a stand-in guidance for the tests of the radiance field."""

from __future__ import annotations

import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid

RED, BLUE, GREEN = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.2, 0.4, 0.8]), torch.tensor([0.2, 0.8, 0.2])


def colored_ball(cameras: Cameras, size: int, radius: float = 0.5, supersample: int = 2) -> Tensor:
    """(n, 3, size, size): a blue ball with a red front and a green top on white, by ray-sphere intersection."""
    origins, directions = cameras.rays(size * supersample, size * supersample)
    closest = (origins * directions).sum(-1)
    inside = closest.square() - origins.square().sum(-1) + radius**2
    points = origins + directions * (-closest - inside.clamp(min=0).sqrt())[..., None]
    color = torch.where(points[..., :1] > 0.4 * radius, RED, BLUE)
    color = torch.where(points[..., 2:] > 0.7 * radius, GREEN, color)
    image = torch.where(inside[..., None] > 0, color, torch.ones(3)).permute(0, 3, 1, 2)
    return torch.nn.functional.avg_pool2d(image, supersample)


class BallGuidance(Guidance):
    """Pulls renders towards the true images of the coloured ball; can be interrupted at a call."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.calls = 0
        self.interrupt_at = interrupt_at
        self.progress: list[float] = []

    @property
    def image_size(self) -> int:
        """Of the true images."""
        return 64

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """Ten times the mean squared error."""
        self.calls += 1
        self.progress.append(progress)
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        assert images.shape[-2:] == (64, 64)
        error = (images - colored_ball(cameras, 64)).square().mean()
        return GuidanceLoss(10 * error, {"mse": error.item()})


class UniformBall:
    """A field of one density and colour inside a ball around the origin; `Field`'s interface for looking at it."""

    device, render, filled_share = Field.device, Field.render, Field.filled_share

    def __init__(self, density: float, radius: float = 1.0, color: Tensor = RED) -> None:
        self.value, self.radius, self.color = density, radius, color
        self.occupancy = OccupancyGrid(16)

    def density(self, points: Tensor) -> Tensor:
        """(n,) density of points (n, 3)."""
        return self.value * (points.norm(dim=-1) < self.radius)

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (n,) and colour (n, 3) of points (n, 3)."""
        return self.density(points), self.color.expand(len(points), 3)

    def background(self, directions: Tensor) -> Tensor:
        """White."""
        return torch.ones_like(directions)
