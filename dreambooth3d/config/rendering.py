"""Rays, cameras and light."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dreambooth3d.config.base import Positive, Rising, RisingRange, Section, Share, ShareRange

Sampling = Literal["auto", "dense", "occupancy"]
Space = Literal["rgb", "latent"]
_Distance = Annotated[float, Field(gt=0)]
_Angle = Annotated[float, Field(gt=0, lt=180)]


class RenderConfig(Section):
    """How rays are sampled."""

    sampler: Sampling = "auto"
    """dense everywhere, or nerfacc's occupancy grid on CUDA; auto picks by device."""
    space: Space = "rgb"
    """What training views show guidance: rgb, images; latent, the guide's latents themselves, which a fresh field then
    holds in place of colours. A later stage in rgb mixes its colours of them."""
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


class CameraJitterConfig(Section):
    """By how much random training cameras miss the subject's centre and the horizontal; 0 has them look straight at it.

    As in Stable-DreamFusion; the cameras' own angles, by which prompts name the view, stay what they are.
    """

    position: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift of a camera along each axis, in world units, drawn evenly."""
    target: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the point that it looks at, along each axis, in world units."""
    roll_deg: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of its roll about its own axis."""


class ProgressiveConfig(Section):
    """What a stage begins with and widens on its way: views around the front first, coarse levels first."""

    views_until: Share = 0.0
    """Share of the stage over which the ranges below widen evenly to those of `cameras`; 0 has these from the start."""
    azimuth_deg: RisingRange = (-45.0, 45.0)
    """Azimuths at the start; in the end all of the circle."""
    elevation_deg: RisingRange = (0.0, 30.0)
    """Elevations at the start."""
    distance: Annotated[tuple[_Distance, _Distance], Rising] = (2.4, 2.6)
    """Distances at the start, in world units."""
    levels_until: Share = 0.0
    """Share of the stage over which finer levels of the encoding begin to learn one after the other; 0 has all of them
    learn from the start."""
    first_levels: Positive = 1
    """Levels that learn from the start, the coarsest ones."""


class ShadingConfig(Section):
    """Albedo first, then also diffuse and textureless shading under a random light."""

    albedo_only_share: Share = 1.0
    """Share of the stage that uses albedo only."""
    diffuse_probability: Share = 0.5
    """Afterwards: probability of diffuse shading; textureless takes half of it."""
    ambient: Annotated[ShareRange, Rising] = (0.6, 0.6)
    """Range of the share of light that comes from everywhere in diffuse shading, drawn for each step (soft shading)."""
