"""Materializers of `RadianceField` and `PseudoViews`: safetensors at full precision, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from zenml.enums import ArtifactType

from dreambooth3d.artifacts import PseudoViews, RadianceField
from dreambooth3d.cameras import Cameras
from dreambooth3d.errors import ArtifactError
from dreambooth3d.images import sheet
from dreambooth3d.record import StepRecord
from materializers.files import FolderMaterializer, read_json, read_tensors, write_json, write_tensors


class RadianceFieldMaterializer(FolderMaterializer):
    """`field.safetensors`, `previews.safetensors` and `field.json`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (RadianceField,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def write(self, data: RadianceField, folder: Path) -> None:
        """Store weights, previews and configuration."""
        write_field(data, folder)
        write_tensors({"previews": data.previews}, folder / "previews.safetensors")

    def read(self, folder: Path, record: StepRecord | None) -> RadianceField:
        """Inverse of `write`."""
        values = read_json(folder / "field.json")
        previews = read_tensors(folder / "previews.safetensors")["previews"]
        state = read_tensors(folder / "field.safetensors")
        record = record or StepRecord("init_nerf")
        return RadianceField(state, values["config"], previews, values["steps"], record, values["kind"])

    def figures(self, data: RadianceField) -> dict[str, Any]:
        """Kind, size and training steps."""
        return {"kind": data.kind, "steps": data.steps, "values": sum(value.numel() for value in data.state.values())}

    def picture(self, data: RadianceField) -> Tensor | None:
        """The previews on one sheet."""
        return sheet(data.previews, columns=min(8, len(data.previews))) if len(data.previews) else None


def write_field(field: RadianceField, folder: Path) -> None:
    """Write what an asset of any kind needs to be rendered: `field.safetensors` and `field.json`."""
    write_tensors(field.state, folder / "field.safetensors")
    write_json({"kind": field.kind, "config": dict(field.config), "steps": field.steps}, folder / "field.json")


class PseudoViewsMaterializer(FolderMaterializer):
    """`views.safetensors` and `cameras.json`. Not PNG: the reconstruction learns from unrounded values."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (PseudoViews,)

    def write(self, data: PseudoViews, folder: Path) -> None:
        """Store images, renders, opacity and cameras."""
        cameras = data.cameras
        angles = torch.stack([cameras.azimuth_deg, cameras.elevation_deg, cameras.distance, cameras.fov_y_deg])
        tensors = {"images": data.images, "renders": data.renders, "opacity": data.opacity, "cameras": angles}
        write_tensors(tensors, folder / "views.safetensors")
        write_json({"strength": data.strength, "cameras": cameras.to_json()}, folder / "cameras.json")

    def read(self, folder: Path, record: StepRecord | None) -> PseudoViews:
        """Inverse of `write`."""
        tensors = read_tensors(folder / "views.safetensors")
        strength = read_json(folder / "cameras.json")["strength"]
        record = record or StepRecord("generate_pseudo_views")
        cameras = Cameras(*tensors["cameras"])
        images, renders, opacity = (tensors[name] for name in ("images", "renders", "opacity"))
        if renders.shape != images.shape or opacity.shape != (len(cameras), *images.shape[2:]):
            raise ArtifactError("its images, renders, opacity and cameras do not belong together")
        return PseudoViews(images, renders, opacity, cameras, strength, record)

    def figures(self, data: PseudoViews) -> dict[str, Any]:
        """How many, and how strongly changed."""
        return {"views": len(data.cameras), "strength": data.strength}

    def picture(self, data: PseudoViews) -> Tensor:
        """Two rows: renders above what became of them."""
        return sheet(torch.cat([data.renders, data.images]), columns=len(data.images))
