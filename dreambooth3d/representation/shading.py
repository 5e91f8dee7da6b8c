"""Shading under a random light, which keeps texture from standing in for shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.config.rendering import ShadingConfig

ShadingMode = Literal["albedo", "diffuse", "textureless"]
LIGHT_DISTANCE = (0.8, 1.5)
LIGHT_SPREAD = 1.0


@dataclass(frozen=True)
class Shading:
    """How albedo becomes colour.

    Attributes:
        mode: albedo, diffuse, or textureless (diffuse with a white albedo).
        light: (views, 3) light position of each view in world units; None for albedo.
        ambient: share of the light that comes from everywhere.
    """

    mode: ShadingMode = "albedo"
    light: Float[Tensor, "views 3"] | None = None
    ambient: float = 1.0

    @property
    def needs_normals(self) -> bool:
        """Whether `shade` looks at normals."""
        return self.mode != "albedo"

    def map(self, function: Callable[[Tensor], Tensor]) -> Shading:
        """The same with `function` of the lights."""
        return self if self.light is None else replace(self, light=function(self.light))

    def shade(
        self,
        albedo: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
        points: Float[Tensor, "n 3"],
        views: Int[Tensor, " n"],
    ) -> Float[Tensor, "n 3"]:
        """Lambertian colour (n, 3) of samples of albedo (n, 3), unit normals (n, 3), points (n, 3), view index (n,).

        Source: Poole et al. 2022, "DreamFusion", eq. 8: albedo * (ambient + diffuse * max(0, n . l)).
        """
        if self.light is None:
            raise ValueError(f"mode={self.mode!r} needs a light: give one position per view.")
        toward = torch.nn.functional.normalize(self.light[views] - points, dim=-1)
        cosine = (normals * toward).sum(-1, keepdim=True).clamp(min=0)
        light = self.ambient + (1 - self.ambient) * cosine
        return light.expand_as(albedo) if self.mode == "textureless" else albedo * light


def draw_shading(config: ShadingConfig, progress: float, cameras: Cameras, generator: torch.Generator) -> Shading:
    """The shading of one step.

    Args:
        progress: position in the stage, in [0, 1]; up to `albedo_only_share` it is always albedo.
        cameras: the step's views; each light is near its camera.
        generator: source of randomness, on the CPU.
    """
    if progress < config.albedo_only_share:
        drawn = 1.0
    else:
        drawn = torch.rand(1, generator=generator).item()
    if drawn >= config.diffuse_probability:
        return Shading()
    mode: ShadingMode = "textureless" if drawn < config.diffuse_probability / 2 else "diffuse"
    return lit(mode, config, cameras, generator)


def lit(mode: ShadingMode, config: ShadingConfig, cameras: Cameras, generator: torch.Generator) -> Shading:
    """The shading of a step that is lit for sure; for the arguments see `draw_shading`."""
    lights, (low, high) = random_lights(cameras, generator), config.ambient
    ambient = low if low == high else low + (high - low) * torch.rand(1, generator=generator).item()
    return Shading(mode, lights, ambient)


def random_lights(cameras: Cameras, generator: torch.Generator) -> Float[Tensor, "views 3"]:
    """(views, 3) light positions: around the camera's direction, at a random distance (DreamFusion, appendix A.2)."""
    positions = cameras.camera_to_world[:, :3, 3]
    noise = torch.randn(len(cameras), 3, generator=generator).to(positions.device)
    distance = torch.rand(len(cameras), 1, generator=generator).to(positions.device)
    low, high = LIGHT_DISTANCE
    direction = torch.nn.functional.normalize(positions + LIGHT_SPREAD * noise, dim=-1)
    return direction * (low + (high - low) * distance) * cameras.distance[:, None]
