"""Step: DreamBooth fine-tuning of UNet and text encoder."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("diffusion"))
def finetune_dreambooth(
    photos: SubjectPhotos,
    base_model: BaseModelConfig,
    base_digest: str,
    config: FinetuneConfig,
    pretrained_digest: str,
    seed: int,
    device: str,
) -> Annotated[CheckpointSet, "checkpoints"]:
    """Teach the base model the subject, and keep a checkpoint every few steps.

    `base_digest` is the SHA-256 of a local base model, or the commit of a hub model: new weights are another input.
    So is `pretrained_digest`, of the checkpoints that are taken in place of training.
    """
    inputs = (photos, base_model, base_digest, config, pretrained_digest, seed)
    with step_session("finetune_dreambooth", device, *inputs) as session:
        session.runtime.log.params(base_model=base_digest)
        base = as_reference(base_model, base_digest)
        return session.finish(finetune(photos, base, config, seed, session.runtime))


def as_reference(config: BaseModelConfig, identity: str) -> BaseModelRef:
    """The base model that was resolved when the pipeline was compiled: `sha256:<digest>` or `commit:<revision>`."""
    kind, _, value = identity.partition(":")
    if kind == "sha256":
        return BaseModelRef(config.path, value, None, config.variant)
    return BaseModelRef(config.path, "", value, config.variant)
