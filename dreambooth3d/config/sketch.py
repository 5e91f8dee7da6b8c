"""A coarse mesh that steers the shape of a field."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dreambooth3d.config.base import Positive
from dreambooth3d.config.mesh_file import MeshFileConfig


class SketchConfig(MeshFileConfig):
    """A coarse mesh that a field should fill, as in Latent-NeRF's sketch-shape; off without a file."""

    weight: Annotated[float, Field(ge=0)] = 400.0
    """Weight of the cross entropy between the field's opacity at points and the sketch's inside; 0 turns it off."""
    leniency: Annotated[float, Field(gt=0)] = 0.05
    """Distance from the sketch's surface, in world units, within which the field may well differ from it: sigma of
    1 - exp(-distance^2 / (2 sigma^2)), by which each point counts."""
    points: Positive = 8192
    """Random points of the unit ball per step."""
