"""An asset from a prompt alone, without photos."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dreambooth3d.config.base import Count, Filled, Section, Seed
from dreambooth3d.config.distillation import GenerateNerfConfig, RegenerateNerfConfig, require_same_making
from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
from dreambooth3d.config.photos import ClassNoun
from dreambooth3d.config.results import EvaluateConfig, ExportConfig

BASE_GUIDE = "base"
RUN_GUIDE = "run:"


def _in_one_line(prompt: str) -> str:
    return " ".join(prompt.split())


class GenerationConfig(Section):
    """What is to be made, and by which model."""

    prompt: Annotated[Filled, AfterValidator(_in_one_line)]
    """What to make, such as `a photo of a red snowman`; each view's word is added to it."""
    negative_prompt: str = ""
    """What the unconditional branch of the guidance is asked for, in all stages that name no other."""
    class_noun: ClassNoun | None = None
    """What kind of thing that is, by which views are judged; None takes the prompt's own noun."""
    guide: Filled = BASE_GUIDE
    """The model that guides: base, the base model as it is; a folder with a fine-tuned model or a LoRA in diffusers'
    layout; or run:NAME, the partial checkpoint of a finished run, of which run:NAME/full and run:NAME/multiview are the
    others."""
    refine: bool = False
    """Distil once more from where the first field is, by the settings of refine_nerf."""


class EvaluatePromptConfig(EvaluateConfig):
    """Evaluation with the judge against true subjects that fit the prompt, where such are known."""

    captions: tuple[Filled, ...] = ()
    """Prompts among which R-precision ranks the prompt; without any, captions that differ in class or colours."""
    true_subjects: Annotated[Count, Field(le=64)] = 2
    """Toybox subjects that fit the prompt, drawn at random, whose true renders the judge sees as well."""


class ExportPromptedConfig(ExportConfig):
    """The exported asset, with the six views that there are no photos to show."""

    six_views: bool = True
    """Also write six_views.png: front, left, back, right, top and bottom."""


class TextTo3dConfig(Section):
    """The parameters of `pipelines.generation.text_to_3d`: one section per step."""

    generation: GenerationConfig
    """What is to be made."""
    seed: Seed = 0
    """Seed of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    base_model: BaseModelConfig = BaseModelConfig()
    scorers: ScorersConfig = ScorersConfig()
    init_nerf: GenerateNerfConfig = GenerateNerfConfig()
    refine_nerf: RegenerateNerfConfig = RegenerateNerfConfig()
    evaluate: EvaluatePromptConfig = EvaluatePromptConfig()
    export_asset: ExportPromptedConfig = ExportPromptedConfig()

    @model_validator(mode="after")
    def _asset_stays_as_it_is_made(self) -> Self:
        if self.generation.refine:
            require_same_making(init_nerf=self.init_nerf, refine_nerf=self.refine_nerf)
        return self
