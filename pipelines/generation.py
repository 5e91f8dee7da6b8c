"""An asset from a prompt alone: no photos, and no fine-tuning."""

from __future__ import annotations

from typing import Literal

import steps
from dreambooth3d import recipe
from dreambooth3d.config.distillation import GenerateNerfConfig, RegenerateNerfConfig
from dreambooth3d.config.generation import (
    EvaluatePromptConfig,
    ExportPromptedConfig,
    GenerationConfig,
    TextTo3dConfig,
)
from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
from dreambooth3d.diffusion.model.guides import is_of_run
from operations.launch.strict import strict_pipeline
from operations.records.checkpoints import find_guide
from steps._as_stages import stages_as_steps


@strict_pipeline(experiment="dreambooth3d-generation", config=TextTo3dConfig)
def text_to_3d(
    generation: GenerationConfig,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    base_model: BaseModelConfig = BaseModelConfig(),
    scorers: ScorersConfig = ScorersConfig(),
    init_nerf: GenerateNerfConfig = GenerateNerfConfig(),
    refine_nerf: RegenerateNerfConfig = RegenerateNerfConfig(),
    evaluate: EvaluatePromptConfig = EvaluatePromptConfig(),
    export_asset: ExportPromptedConfig = ExportPromptedConfig(),
) -> None:
    """Distil the model that guides under the prompt, and measure, export and publish the asset."""
    config = TextTo3dConfig(**locals())
    # An artifact of another run stands for the checkpoint in it, as a step's output does.
    guide = find_guide(generation.guide) if is_of_run(generation.guide) else None
    made = recipe.generate(config, stages_as_steps(device), guide)  # pyright: ignore[reportArgumentType]
    steps.publish(made.report, made.bundle, made.asset, made.photos, config, {})
