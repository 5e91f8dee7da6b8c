"""Step: renders of the coarse field, turned into views of the subject (stage 2)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.generate_pseudo_views))
def generate_pseudo_views(
    coarse: RadianceField,
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    config: PseudoViewsConfig,
    seed: int,
    device: str,
) -> Annotated[PseudoViews, "pseudo_views"]:
    """Render evenly spread views, and redo part of the noise schedule with the full checkpoint."""
    return run_stage(stages.generate_pseudo_views, device, coarse, checkpoint, photos, config, seed)
