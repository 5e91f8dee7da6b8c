"""Step: the refined radiance field (stage 3, second half)."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import RefineNerfConfig
from dreambooth3d.config.models import ScorerRef
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.refine_nerf))
def refine_nerf(
    checkpoint: DreamBoothCheckpoint,
    coarse: RadianceField,
    photos: SubjectPhotos,
    selector: ScorerRef,
    config: RefineNerfConfig,
    seed: int,
    device: str,
    pseudo: PseudoViews | None = None,
) -> Annotated[RadianceField, "asset_field"]:
    """Distil on random cameras from where the coarse field is, alongside reconstruction of the pseudo views."""
    inputs = (checkpoint, coarse, photos, selector, config, seed)
    return run_stage(stages.refine_nerf, device, *inputs, pseudo=pseudo)
