"""Step: the asset of one context, such as the subject in another colour."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import DreamBoothCheckpoint, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import EditNerfConfig
from dreambooth3d.config.models import ScorerRef
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.edit_nerf))
def edit_nerf(
    checkpoint: DreamBoothCheckpoint,
    asset: RadianceField,
    photos: SubjectPhotos,
    prompt: str,
    selector: ScorerRef,
    config: EditNerfConfig,
    seed: int,
    device: str,
) -> Annotated[RadianceField, "edited_field"]:
    """Distil under the context's prompt, from where the finished asset is."""
    return run_stage(stages.edit_nerf, device, checkpoint, asset, photos, prompt, selector, config, seed)
