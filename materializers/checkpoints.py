"""Materializers of checkpoints: one folder per UNet and text-encoder pair, by reference where it is stored already."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from zenml.enums import ArtifactType, VisualizationType

from dreambooth3d.artifacts import BaseModelRef, CheckpointChoice, CheckpointSet, DreamBoothCheckpoint
from dreambooth3d.record import StepRecord
from materializers.files import FolderMaterializer, read_json, read_table, write_json


class _CheckpointFiles(FolderMaterializer):
    """What both checkpoint materializers share."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def _describe(self, checkpoint: DreamBoothCheckpoint) -> dict[str, Any]:
        place = f"step_{checkpoint.step:06d}"
        return {
            "step": checkpoint.step,
            "unet": self.store_weights(checkpoint.unet, f"{place}/unet.safetensors"),
            "text_encoder": self.store_weights(checkpoint.text_encoder, f"{place}/text_encoder.safetensors"),
        }

    def _restore(
        self, entry: dict[str, Any], base: BaseModelRef, record: StepRecord | None = None
    ) -> DreamBoothCheckpoint:
        unet, text_encoder = self.restore_weights(entry["unet"]), self.restore_weights(entry["text_encoder"])
        return DreamBoothCheckpoint(int(entry["step"]), unet, text_encoder, base, record)


class DreamBoothCheckpointMaterializer(_CheckpointFiles):
    """`checkpoint.json`, and the weights where no other artifact holds them."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DreamBoothCheckpoint,)

    def write(self, data: DreamBoothCheckpoint, folder: Path) -> None:
        """Store the pair, or references to it."""
        entry = {**self._describe(data), "base_model": asdict(data.base_model)}
        write_json(entry, folder / "checkpoint.json")

    def read(self, folder: Path, record: StepRecord | None) -> DreamBoothCheckpoint:
        """Inverse of `write`; the weights stay where they are."""
        entry = read_json(folder / "checkpoint.json")
        return self._restore(entry, BaseModelRef(**entry["base_model"]), record)

    def figures(self, data: DreamBoothCheckpoint) -> dict[str, Any]:
        """Step, size and base model."""
        size = data.unet.size_bytes + data.text_encoder.size_bytes
        return {"step": data.step, "size_mib": size / 2**20, "base_model": data.base_model.path}

    def picture(self, data: DreamBoothCheckpoint) -> Tensor | None:
        """The last sample sheet that the step drew."""
        return last_image(data.record)


class CheckpointSetMaterializer(_CheckpointFiles):
    """`checkpoints.json` and one folder of weights per step."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (CheckpointSet,)

    def write(self, data: CheckpointSet, folder: Path) -> None:
        """Store every pair, or references to it."""
        entries = [self._describe(data.checkpoints[step]) for step in data.steps]
        write_json({"base_model": asdict(data.base_model), "checkpoints": entries}, folder / "checkpoints.json")

    def read(self, folder: Path, record: StepRecord | None) -> CheckpointSet:
        """Inverse of `write`; the weights stay where they are."""
        values = read_json(folder / "checkpoints.json")
        base = BaseModelRef(**values["base_model"])
        checkpoints = {int(entry["step"]): self._restore(entry, base) for entry in values["checkpoints"]}
        return CheckpointSet(checkpoints, base, record or StepRecord("finetune_dreambooth"))

    def figures(self, data: CheckpointSet) -> dict[str, Any]:
        """Steps and size."""
        pairs = data.checkpoints.values()
        size = sum(pair.unet.size_bytes + pair.text_encoder.size_bytes for pair in pairs)
        return {"steps": data.steps, "checkpoints": len(data.steps), "size_mib": size / 2**20}

    def picture(self, data: CheckpointSet) -> Tensor | None:
        """The last sample sheet."""
        return last_image(data.record)


class CheckpointChoiceMaterializer(FolderMaterializer):
    """`scores.parquet` and `choice.json`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (CheckpointChoice,)

    def write(self, data: CheckpointChoice, folder: Path) -> None:
        """Store table and choice."""
        data.scores.to_parquet(folder / "scores.parquet")
        choice = {"partial_step": data.partial_step, "full_step": data.full_step, "reason": data.reason}
        write_json(choice, folder / "choice.json")

    def read(self, folder: Path, record: StepRecord | None) -> CheckpointChoice:
        """Inverse of `write`."""
        choice = read_json(folder / "choice.json")
        scores = read_table(folder / "scores.parquet")
        return CheckpointChoice(scores=scores, record=record or StepRecord("select_checkpoints"), **choice)

    def figures(self, data: CheckpointChoice) -> dict[str, Any]:
        """The choice and its reason."""
        return {"partial_step": data.partial_step, "full_step": data.full_step, "reason": data.reason}

    def picture(self, data: CheckpointChoice) -> Tensor | None:
        """The contact sheet of the samples."""
        return last_image(data.record)

    def save_visualizations(self, data: CheckpointChoice) -> dict[str, VisualizationType]:
        """The score table under the reason, and the contact sheet."""
        page = f"<p>{data.reason}</p>{data.scores.to_html(index=False, float_format='%.4f')}"
        return {
            **self.write_text_page("choice.html", page, VisualizationType.HTML),
            **super().save_visualizations(data),
        }


def last_image(record: StepRecord | None) -> Tensor | None:
    """The last image of a record as float (3, height, width) in [0, 1]."""
    if record is None or not record.images:
        return None
    image = list(record.images.values())[-1]
    return image.permute(2, 0, 1).to(torch.float32) / 255
