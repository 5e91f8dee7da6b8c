"""Step: the model that guides an asset made from a prompt alone."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.config.models import BaseModelConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.read_guide))
def read_guide(
    base_model: BaseModelConfig, base_digest: str, guide: str, guide_digest: str
) -> Annotated[DreamBoothCheckpoint, "guide"]:
    """The base model as it is, or a fine-tuned model or LoRA, as a checkpoint of the base model."""
    return run_stage(stages.read_guide, "cpu", base_model, base_digest, guide, guide_digest)
