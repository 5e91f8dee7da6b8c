"""A given mesh that is painted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dreambooth3d.config.mesh import TextureConfig
from dreambooth3d.config.mesh_file import MeshFileConfig


class PaintedConfig(MeshFileConfig):
    """A mesh whose triangles stay as they are in its file, and whose colours are learned."""

    learning: ClassVar[frozenset[str]] = frozenset({"texture_rate"})
    """What also holds in a stage that goes on from a painted mesh; the rest says what a fresh one is."""
    texture: TextureConfig = TextureConfig()
    """Where colours come from: the place in space, read at the surface. The export bakes them into the file's own UV
    map."""
    background: Literal["learned", "white", "network"] = "learned"
    """What lies behind the mesh while it learns: one learned colour, white, or a small environment network."""
    texture_rate: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the learning rate for colours."""
