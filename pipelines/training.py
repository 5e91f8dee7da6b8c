"""The main job: photos of one subject in, a personalised 3D asset out."""

from __future__ import annotations

from typing import Literal, cast

from zenml.steps.entrypoint_function_utils import StepArtifact

import steps
from dreambooth3d import recipe as method
from dreambooth3d.config.distillation import EditNerfConfig, InitNerfConfig, RefineNerfConfig
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, SelectConfig
from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.config.results import EvaluateConfig, ExportConfig
from dreambooth3d.config.training import RecipeConfig, TrainingConfig
from operations.launch.identity import training_identity
from operations.launch.strict import strict_pipeline
from steps._as_stages import stages_as_steps


@strict_pipeline(experiment="dreambooth3d")
def dreambooth3d(
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    photos: PhotosConfig = PhotosConfig(),
    base_model: BaseModelConfig = BaseModelConfig(),
    scorers: ScorersConfig = ScorersConfig(),
    recipe: RecipeConfig = RecipeConfig(),
    contexts: tuple[str, ...] = (),
    finetune_dreambooth: FinetuneConfig = FinetuneConfig(),
    select_checkpoints: SelectConfig = SelectConfig(),
    init_nerf: InitNerfConfig = InitNerfConfig(),
    generate_pseudo_views: PseudoViewsConfig = PseudoViewsConfig(),
    finetune_multiview: MultiviewConfig = MultiviewConfig(),
    refine_nerf: RefineNerfConfig = RefineNerfConfig(),
    edit_nerf: EditNerfConfig = EditNerfConfig(),
    evaluate: EvaluateConfig = EvaluateConfig(),
    export_asset: ExportConfig = ExportConfig(),
) -> None:
    """Personalise the base model with the photos, lift it to 3D, and measure, export and publish the asset.

    So is one more asset for each of the contexts, made from the finished one.
    """
    config = TrainingConfig(**locals())
    made = method.run(config, stages_as_steps(device))
    identity = training_identity(config, made.data_md5)
    # What a step returns in a pipeline's body stands for the value that it will have made.
    edited = [cast(StepArtifact, context.bundle) for context in made.contexts]
    steps.publish(made.report, made.bundle, made.asset, made.photos, config, identity, after=edited)
