"""Step: DreamBooth fine-tuning of UNet and text encoder."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import CheckpointSet, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.finetune_dreambooth))
def finetune_dreambooth(
    photos: SubjectPhotos,
    base_model: BaseModelConfig,
    base_digest: str,
    config: FinetuneConfig,
    pretrained_digest: str,
    seed: int,
    device: str,
) -> Annotated[CheckpointSet, "checkpoints"]:
    """Teach the base model the subject, and keep a checkpoint every few steps."""
    inputs = (photos, base_model, base_digest, config, pretrained_digest, seed)
    return run_stage(stages.finetune_dreambooth, device, *inputs)
