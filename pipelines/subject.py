"""The main job as a child run: one subject of a run over many."""

from __future__ import annotations

from typing import Any

from zenml import pipeline

import steps
from dreambooth3d.config.training import TrainingConfig
from operations.launch.checking import parse_parameters
from pipelines.training import dreambooth3d

# Configurable under `steps` of the YAML of a run over many; what is once per context is not part of it.
TRAINING_STEPS = (
    steps.validate_photos,
    steps.finetune_dreambooth,
    steps.select_checkpoints,
    steps.init_nerf,
    steps.generate_pseudo_views,
    steps.finetune_multiview,
    steps.refine_nerf,
    steps.load_ground_truth,
    steps.evaluate,
    steps.export_asset,
    steps.publish,
)


@pipeline(
    dynamic=True,
    name="dreambooth3d_subject",
    depends_on=[*TRAINING_STEPS],
    settings={"experiment_tracker": {"experiment_name": "dreambooth3d", "nested": False}},
)
def train_subject(parameters: dict[str, Any]) -> None:
    """`pipelines.training.dreambooth3d` as a child: the same body, which here runs when the parent gets to it."""
    config = parse_parameters(parameters, TrainingConfig)
    dreambooth3d.entrypoint(**{name: getattr(config, name) for name in TrainingConfig.model_fields})
