"""Step: the asset of one context, such as the subject in another colour."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import EditNerfConfig
from dreambooth3d.evaluation.clip import pinned
from dreambooth3d.stages import distil_checkpoint
from operations.launch.sources import library
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
        runtime = session.runtime
        runtime.log.params(prompt=prompt)
        given = (checkpoint, prompt, config, seed, runtime, photos, pinned(selector, selector_digest))
        return session.finish(distil_checkpoint(*given, init=asset))
