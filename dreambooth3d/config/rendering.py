"""Rays, cameras and light."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dreambooth3d.config.base import Positive, Rising, RisingRange, Section, Share

Sampling = Literal["auto", "dense", "occupancy"]
_Distance = Annotated[float, Field(gt=0)]
_Angle = Annotated[float, Field(gt=0, lt=180)]


class RenderConfig(Section):
    """How rays are sampled."""

    sampler: Sampling = "auto"
    """dense everywhere, or nerfacc's occupancy grid on CUDA; auto picks by device."""
    size: Positive = 64
    """Rays per image side while training; images are upsampled to the guidance's size."""
    samples_per_ray: Positive = 64
    """Samples between the two bounds of a ray."""
    occupancy_resolution: Positive = 32
    """Cells per side of the grid that masks empty space."""
    occupancy_every: Positive = 16
    """Steps between updates of that grid."""
    occupancy_threshold: Annotated[float, Field(gt=0)] = 0.01
    """Opacity of a cell below which it counts as empty."""


class CameraConfig(Section):
    """The range of random training cameras."""

    elevation_deg: RisingRange = (-10.0, 80.0)
    """Elevation range."""
    distance: Annotated[tuple[_Distance, _Distance], Rising] = (2.3, 2.7)
    """Distance range in world units."""
    fov_y_deg: Annotated[tuple[_Angle, _Angle], Rising] = (39.0, 45.0)
    """Range of the vertical field of view."""


class ShadingConfig(Section):
    """Albedo first, then also diffuse and textureless shading under a random light."""

    albedo_only_share: Share = 1.0
    """Share of the stage that uses albedo only."""
    diffuse_probability: Share = 0.5
    """Afterwards: probability of diffuse shading; textureless takes half of it."""
    ambient: Share = 0.6
    """Ambient light of the diffuse shading."""
