"""Step: a first radiance field by score distillation (stage 1)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import DreamBoothCheckpoint, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.config.models import ScorerRef
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.init_nerf))
def init_nerf(
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    selector: ScorerRef,
    config: InitNerfConfig,
    seed: int,
    device: str,
) -> Annotated[RadianceField, "coarse_field"]:
    """Distil a checkpoint into a first radiance field, whose heading the selector corrects."""
    return run_stage(stages.init_nerf, device, checkpoint, photos, selector, config, seed)
