"""Step: a first radiance field by score distillation (stage 1)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, RadianceField, SubjectPhotos
from dreambooth3d.config import InitNerfConfig
from dreambooth3d.diffusion.guidance import ScoreDistillation
from dreambooth3d.evaluation.views import ViewScores
from dreambooth3d.nerf.distillation import distil
from steps._sources import library
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
        context = session.context
        guidance = ScoreDistillation.from_checkpoint(checkpoint, photos, config.guidance, seed, context.device)
        wanted = config.photos.weight > 0 or config.gates.need_selector
        views = ViewScores.load(selector, photos.class_noun, context.device, photos.images) if wanted else None
        likeness = views and views.likeness
        field = distil(guidance, config, seed, context, photos=photos, view_logits=views, likeness=likeness)
        return session.finish(field)
