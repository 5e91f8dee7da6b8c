"""Step: the asset of one context, such as the subject in another colour."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, RadianceField, SubjectPhotos
from dreambooth3d.config import EditNerfConfig
from dreambooth3d.diffusion.components import load_components
from dreambooth3d.diffusion.guidance import ScoreDistillation
from dreambooth3d.evaluation.views import ViewScores
from dreambooth3d.nerf.distillation import distil
from steps._sources import library
from steps._support import step_name, step_session


@step(experiment_tracker=True, cache_policy=library("diffusion", "nerf", "evaluation"))
def edit_nerf(
    checkpoint: DreamBoothCheckpoint,
    asset: RadianceField,
    photos: SubjectPhotos,
    prompt: str,
    selector: str,
    selector_digest: str,
    config: EditNerfConfig,
    seed: int,
    device: str,
) -> Annotated[RadianceField, "edited_field"]:
    """Distil under the context's prompt, from where the finished asset is."""
    inputs = (checkpoint, asset, photos, prompt, selector_digest, config, seed)
    with step_session(step_name(), device, *inputs) as session:
        context = session.context
        context.log.params(prompt=prompt)
        components = load_components(checkpoint.base_model, context.device, checkpoint)
        guidance = ScoreDistillation(components, prompt, config.guidance, seed)
        wanted = config.photos.weight > 0 or config.gates.need_selector
        views = ViewScores.load(selector, photos.class_noun, context.device, photos.images) if wanted else None
        likeness = views and views.likeness
        return session.finish(distil(guidance, config, seed, context, asset, None, photos, views, likeness))
