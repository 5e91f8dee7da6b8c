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

    density_scale: Annotated[float, Field(gt=0)] = 25.0
    """Factor on the activated density, in inverse world units."""
    blob_density: float = 10.0
    """Logit of the initial density blob at the origin; it falls linearly to 0 at blob_radius and on below it."""
    blob_radius: Annotated[float, Field(gt=0)] = 0.5
    """Radius of the initial density blob in world units."""
    background: Literal["learned", "white", "network"] = "learned"
    """What lies behind the field while it learns: one learned colour, white, or a small environment network."""
