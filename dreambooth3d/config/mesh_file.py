"""Meshes that a user gives."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dreambooth3d.config.base import Section


class MeshFileConfig(Section):
    """A section that may name the file of a mesh."""

    file: Annotated[str, Field(pattern=r"\S")] | None = None
    """Path of a mesh as GLB, OBJ, PLY or STL, seen from the working directory or the checkout."""
    digest: str = ""
    """SHA-256 of the file, which a run fills in, so that another mesh of that name is another input."""
