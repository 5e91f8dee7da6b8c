"""Step: the partial checkpoint fine-tuned further on pseudo and real photos together (stage 3, first half)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.config.finetuning import MultiviewConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.finetune_multiview))
def finetune_multiview(
    checkpoint: DreamBoothCheckpoint,
    pseudo: PseudoViews,
    photos: SubjectPhotos,
    config: MultiviewConfig,
    seed: int,
    device: str,
) -> Annotated[DreamBoothCheckpoint, "multiview"]:
    """Teach the partial checkpoint how the subject looks from all sides."""
    return run_stage(stages.finetune_multiview, device, checkpoint, pseudo, photos, config, seed)
