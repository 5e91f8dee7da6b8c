"""What an asset is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator

from dreambooth3d.config.base import Section
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.painted import PaintedConfig

SETTINGS: Mapping[str, type[Section]] = {
    "field": FieldConfig,
    "mesh": MeshConfig,
    "gaussians": GaussiansConfig,
    "painted": PaintedConfig,
}
"""The kinds that exist, each with the model of its settings, which stand in a section of the kind's name."""


def _existing(kind: str) -> str:
    if kind not in SETTINGS:
        raise ValueError(f"assets of the kind {kind} do not exist yet: choose one of {', '.join(SETTINGS)}")
    return kind


RepresentationKind = Annotated[Literal["field", "mesh", "gaussians", "painted"], AfterValidator(_existing)]
