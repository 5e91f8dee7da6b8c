"""The radiance field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dreambooth3d.config.base import Positive, Section

EncodingName = Literal["hash_grid", "dense"]
Implementation = Literal["auto", "tcnn", "triton", "torch"]


class EncodingConfig(Section):
    """What colours, and a field's densities, are made of, as a function of the place."""

    encoding: EncodingName = "hash_grid"
    """Where features come from: a multi-resolution hash grid, or a dense volume."""
    implementation: Implementation = "auto"
    """What computes the hash grid; auto is on CUDA the first of triton, tcnn and torch that works, on a CPU torch."""
    levels: Positive = 10
    """Levels of the hash grid."""
    features_per_level: Positive = 2
    """Features per level."""
    log2_table_size: Annotated[int, Field(ge=8, le=24)] = 17
    """Entries per level of the hash table, as a power of two."""
    base_resolution: Positive = 8
    """Cells per side of the coarsest level."""
    level_scale: Annotated[float, Field(gt=1)] = 1.5
    """Growth of the resolution from level to level."""
    volume_resolution: Positive = 48
    """Cells per side of the dense volume (encoding: dense)."""
    hidden_width: Positive = 64
    """Width of the small network behind the hash grid."""


class FieldConfig(EncodingConfig):
    """The radiance field."""

    geometry: Literal["density", "sdf"] = "density"
    """What the shape is: a density of its own, or a signed distance that density is made of, as in VolSDF."""
    density_scale: Annotated[float, Field(gt=0)] = 25.0
    """With geometry density: factor on the activated density, in inverse world units."""
    blob_density: float = 10.0
    """With geometry density: logit of the initial blob at the origin; it falls linearly to 0 at blob_radius and on
    below it."""
    blob_radius: Annotated[float, Field(gt=0)] = 0.5
    """Radius of the initial blob in world units; with geometry sdf, of the ball whose signed distance is the first."""
    initial_sharpness: Annotated[float, Field(ge=5, le=200)] = 20.0
    """With geometry sdf: density inside at the start, in inverse world units; it falls to half of it at the surface,
    and beyond by a factor e in every 1/sharpness. It is learned."""
    sharpness_rate: Annotated[float, Field(gt=0)] = 1.0
    """With geometry sdf: factor on the learning rate for the logit of the sharpness, which stays between 5 and 200."""
    eikonal: Annotated[float, Field(ge=0)] = 1.0
    """With geometry sdf: weight of (|gradient of the signed distance| - 1)^2, mean over the unit ball."""
    background: Literal["learned", "white", "texture", "network"] = "learned"
    """What lies behind the field while it learns: one learned colour, white, or what is seen in each direction, by a
    learned picture or a small network."""
