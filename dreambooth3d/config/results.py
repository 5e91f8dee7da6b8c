"""What is measured of an asset, and what is exported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dreambooth3d.config.base import Positive, Section


class EvaluateConfig(Section):
    """Evaluation with the judge, and against ground truth where it is known."""

    size: Positive = 64
    """Side of the scored images in pixels."""
    samples_per_ray: Positive = 96
    """Samples per ray of the scored renders."""


class ExportConfig(Section):
    """The exported asset."""

    mesh_resolution: Positive = 96
    """Grid cells per side for marching cubes."""
    mesh_threshold: Annotated[float, Field(gt=0)] = 10.0
    """Density of the surface, in inverse world units."""
    frame_size: Positive = 256
    """Side of the turntable frames in pixels."""
    frame_rays: Positive = 128
    """Rays per side for them; frames are upsampled."""
    samples_per_ray: Positive = 96
    """Samples per ray."""
    frames_per_second: Positive = 12
    """Speed of the turntable."""
    page_limit_mb: Annotated[float, Field(gt=0)] = 3.0
    """Largest size of the viewer page in megabytes; a larger mesh is shown there at a coarser resolution."""
