"""Materializer of `SubjectPhotos`: PNG, Parquet, JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.errors import ArtifactError
from dreambooth3d.images import sheet
from dreambooth3d.record import StepRecord
from materializers.files import FolderMaterializer, read_images, read_json, read_table, write_images, write_json

_HELD_OUT = "held_out"
_MASK_FACTS = ("mask_source", "mask_confidence", "mask_trusted", "mask_cut")
_FIELDS = ("subject", "identifier", "class_noun", "description", "dataset_hash", "prompt")


class SubjectPhotosMaterializer(FolderMaterializer):
    """Photos come from 8-bit files, so PNG keeps them exactly, and so their masks."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (SubjectPhotos,)

    def write(self, data: SubjectPhotos, folder: Path) -> None:
        """`photos/*.png`, `masks/*.png`, `facts.parquet`, `photos.json`, and the same of photos held out below them."""
        write_images(data.images, folder / "photos")
        write_images(tuple(mask.expand(3, -1, -1) for mask in data.masks), folder / "masks")
        data.facts.to_parquet(folder / "facts.parquet")
        fields = {name: getattr(data, name) for name in _FIELDS}
        write_json({**fields, "findings": list(data.findings)}, folder / "photos.json")
        if data.held_out is not None:
            (folder / _HELD_OUT).mkdir()
            self.write(data.held_out, folder / _HELD_OUT)

    def read(self, folder: Path, record: StepRecord | None) -> SubjectPhotos:
        """Inverse of `write`."""
        fields = read_json(folder / "photos.json")
        findings = tuple(fields.pop("findings"))
        facts = read_table(folder / "facts.parquet")
        images = read_images(folder / "photos")
        masks = tuple(mask[0] for mask in read_images(folder / "masks"))
        held_out = self.read(folder / _HELD_OUT, None) if (folder / _HELD_OUT).is_dir() else None
        photos = SubjectPhotos(images=images, facts=facts, findings=findings, masks=masks, held_out=held_out, **fields)
        _require_consistent(photos)
        return photos if record is None else replace(photos, record=record)

    def figures(self, data: SubjectPhotos) -> dict[str, Any]:
        """Who, how many, and what the check found."""
        fields = {name: getattr(data, name) for name in _FIELDS}
        counts = {"photos": len(data.images), "findings": len(data.findings), "trusted_masks": int(data.trusted.sum())}
        held_out = 0 if data.held_out is None else len(data.held_out.images)
        return {**fields, **counts, "held_out": held_out}

    def picture(self, data: SubjectPhotos) -> Tensor:
        """All photos on one sheet; a white pixel where there are none."""
        if not data.images:
            return torch.ones(3, 1, 1)
        return sheet(data.resized(192), columns=min(6, len(data.images)))


def _require_consistent(photos: SubjectPhotos) -> None:
    """Check that images, masks and facts are of the same photos.

    Raises:
        ArtifactError: they are not.
    """
    sizes = [image.shape[-2:] for image in photos.images]
    if len(photos.facts) != len(sizes) or (photos.masks and [mask.shape for mask in photos.masks] != sizes):
        raise ArtifactError("its images, masks and facts are not of the same photos")
    if photos.masks and not {*_MASK_FACTS} <= {*photos.facts}:
        raise ArtifactError(f"its facts lack some of {', '.join(_MASK_FACTS)}")
    if photos.masks and photos.facts["mask_trusted"].dtype != bool:
        raise ArtifactError("mask_trusted of its facts is not true or false for each photo")
