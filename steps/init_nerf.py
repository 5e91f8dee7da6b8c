"""Step: a first radiance field by score distillation (stage 1)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.evaluation.clip import pinned
from dreambooth3d.stages import distil_checkpoint
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("diffusion", "nerf", "evaluation"))
def init_nerf(
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    selector: str,
    selector_digest: str,
    config: InitNerfConfig,
    seed: int,
    device: str,
) -> Annotated[RadianceField, "coarse_field"]:
    """Distil a checkpoint into a first radiance field, whose heading the selector corrects."""
    with step_session("init_nerf", device, checkpoint, photos, selector_digest, config, seed) as session:
        given = (checkpoint, photos.instance_prompt, config, seed, session.runtime, photos)
        return session.finish(distil_checkpoint(*given, pinned(selector, selector_digest)))
