"""Step: the refined radiance field (stage 3, second half)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.config import RefineNerfConfig
from dreambooth3d.diffusion.guidance import ScoreDistillation
from dreambooth3d.evaluation.views import ViewScores
from dreambooth3d.nerf.distillation import distil
from steps._sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("diffusion", "nerf", "evaluation"))
def refine_nerf(
    checkpoint: DreamBoothCheckpoint,
    coarse: RadianceField,
    photos: SubjectPhotos,
    selector: str,
    selector_digest: str,
    config: RefineNerfConfig,
    seed: int,
    device: str,
    pseudo: PseudoViews | None = None,
) -> Annotated[RadianceField, "asset_field"]:
    """Distil on random cameras from where the coarse field is, alongside reconstruction of the pseudo views."""
    inputs = (checkpoint, coarse, photos, selector_digest, config, seed, pseudo)
    with step_session("refine_nerf", device, *inputs) as session:
        context = session.context
        guidance = ScoreDistillation.from_checkpoint(checkpoint, photos, config.guidance, seed, context.device)
        wanted = config.photos.weight > 0 or config.gates.need_selector
        views = ViewScores.load(selector, photos.class_noun, context.device, photos.images) if wanted else None
        likeness = views and views.likeness
        field = distil(guidance, config, seed, context, coarse, pseudo, photos, views, likeness)
        return session.finish(field)
