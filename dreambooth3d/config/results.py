"""What is measured of an asset, and what is exported."""

from __future__ import annotations

from typing import Annotated, Literal

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
    mesh_threshold: Literal["silhouette"] | Annotated[float, Field(gt=0)] = "silhouette"
    """Density of the surface in inverse world units, or that whose silhouettes are the asset's own."""
    max_triangles: Annotated[int, Field(ge=100)] = 20000
    """Triangles of the mesh at most."""
    colors: Literal["texture", "vertices"] = "texture"
    """A texture over an atlas, or one colour per vertex."""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Texels per side."""
    shell_cells: Annotated[float, Field(gt=0)] = 5.0
    """How deep around the surface its colour is looked for, in cells of the grid."""
    metres: Annotated[float, Field(gt=0)] | None = None
    """Longest side of the mesh in metres; else a world unit is one."""
    copyright: str = "The owner of the photos"
    """Whose the asset is, as its files say; empty leaves it out."""
    measured_size: Positive = 64
    """Side in pixels of the pictures in which the mesh is compared with the asset and the truth."""
    frame_size: Positive = 256
    """Side of the turntable frames in pixels."""
    frame_rays: Positive = 128
    """Rays per side for them; frames are upsampled."""
    samples_per_ray: Positive = 96
    """Samples per ray."""
    frames_per_second: Positive = 12
    """Speed of the turntable."""
    six_views: bool = False
    """Also write six_views.png: front, left, back, right, top and bottom."""
    page_limit_mb: Annotated[float, Field(gt=0)] = 3.0
    """Largest size of the viewer page in megabytes; a larger mesh is shown there in fewer triangles and texels."""
