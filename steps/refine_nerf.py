"""Step: the refined radiance field (stage 3, second half)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import RefineNerfConfig
from dreambooth3d.evaluation.clip import pinned
from dreambooth3d.stages import distil_checkpoint
from operations.launch.sources import library
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
        given = (checkpoint, photos.instance_prompt, config, seed, session.runtime, photos)
        scorer = pinned(selector, selector_digest)
        return session.finish(distil_checkpoint(*given, scorer, init=coarse, reconstruction=pseudo))
