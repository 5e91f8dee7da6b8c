"""Step: the partial checkpoint fine-tuned further on pseudo and real photos together (stage 3, first half)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.config.finetuning import MultiviewConfig
from dreambooth3d.diffusion.finetuning import dreambooth
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("diffusion"))
def finetune_multiview(
    checkpoint: DreamBoothCheckpoint,
    pseudo: PseudoViews,
    photos: SubjectPhotos,
    config: MultiviewConfig,
    seed: int,
    device: str,
) -> Annotated[DreamBoothCheckpoint, "multiview"]:
    """Teach the partial checkpoint how the subject looks from all sides."""
    with step_session("finetune_multiview", device, checkpoint, pseudo, photos, config, seed) as session:
        return session.finish(dreambooth.finetune_multiview(checkpoint, pseudo, photos, config, seed, session.runtime))
