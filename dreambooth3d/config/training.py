"""The parameters of a whole pipeline: one section per step."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from dreambooth3d.config.base import Filled, Section, Seed
from dreambooth3d.config.distillation import (
    EditNerfConfig,
    FitTrueViewsConfig,
    InitNerfConfig,
    RefineNerfConfig,
    require_same_making,
)
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, SelectConfig
from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.config.results import EvaluateConfig, ExportConfig


class RecipeConfig(Section):
    """Which stages run, and with which checkpoint."""

    init_from: Literal["partial", "full"] = "partial"
    """Checkpoint that guides the first radiance field."""
    pseudo_views: bool = True
    """Make pseudo views with the full checkpoint."""
    multiview: bool = True
    """Fine-tune the partial checkpoint on pseudo and real photos together."""
    refine_with: Literal["multiview", "full", "none"] = "multiview"
    """Checkpoint that guides the refinement; none exports the first field."""

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        if self.multiview and not self.pseudo_views:
            raise ValueError("multiview needs pseudo_views: set recipe.pseudo_views=true or recipe.multiview=false")
        if self.refine_with == "multiview" and not self.multiview:
            raise ValueError("refine_with=multiview needs recipe.multiview=true")
        return self


CONTEXT_STEPS = ("edit_nerf", "evaluate_context", "export_context")
"""What runs once for each of `TrainingConfig.contexts`, as `edit_nerf_0` and so on."""


class TrainingConfig(Section):
    """The parameters of `pipelines.training.dreambooth3d`: one section per step."""

    seed: Seed = 0
    """Seed of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    photos: PhotosConfig = PhotosConfig()
    base_model: BaseModelConfig = BaseModelConfig()
    scorers: ScorersConfig = ScorersConfig()
    recipe: RecipeConfig = RecipeConfig()
    contexts: tuple[Filled, ...] = ()
    """Prompts, such as `a photo of a red sks dog`: for each, one more asset is made of the finished one. They name the
    subject by its identifier and class noun."""
    finetune_dreambooth: FinetuneConfig = FinetuneConfig()
    select_checkpoints: SelectConfig = SelectConfig()
    init_nerf: InitNerfConfig = InitNerfConfig()
    generate_pseudo_views: PseudoViewsConfig = PseudoViewsConfig()
    finetune_multiview: MultiviewConfig = MultiviewConfig()
    refine_nerf: RefineNerfConfig = RefineNerfConfig()
    edit_nerf: EditNerfConfig = EditNerfConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export_asset: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _assets_stay_as_they_are_made(self) -> Self:
        refinement = {} if self.recipe.refine_with == "none" else {"refine_nerf": self.refine_nerf}
        contexts = {"edit_nerf": self.edit_nerf} if self.contexts else {}
        require_same_making(init_nerf=self.init_nerf, **refinement, **contexts)
        return self


class CeilingConfig(Section):
    """The parameters of `pipelines.ceiling.multiview_truth`: one section per step."""

    seed: Seed = 0
    """Seed of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    photos: PhotosConfig = PhotosConfig()
    scorers: ScorersConfig = ScorersConfig()
    fit_true_views: FitTrueViewsConfig = FitTrueViewsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export_asset: ExportConfig = ExportConfig()
