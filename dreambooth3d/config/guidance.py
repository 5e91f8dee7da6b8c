"""Score distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dreambooth3d.config.base import Acceleration, Filled, Positive, Range, Section, Share, ShareRange

_Magnitude = Annotated[float, Field(gt=0)]
LossName = Literal["sds", "sjc", "csd", "nfsd", "sdi", "vsd"]


@dataclass(frozen=True)
class LossNeeds:
    """What a loss asks of the rest of the configuration.

    Attributes:
        guided: it follows a guided prediction, which `rescale` can change, rather than differences of predictions.
        bad_prompt: it asks about bad images, under `nfsd_negative_prompt`.
        render_model: it trains a model of the renders alongside, which lives in one process.
        denoised: its direction is that from the latents to what the model would denoise them to, in units of noise.
    """

    guided: bool = True
    bad_prompt: bool = False
    render_model: bool = False
    denoised: bool = False


LOSSES: Mapping[LossName, LossNeeds] = {
    "sds": LossNeeds(denoised=True),
    "sjc": LossNeeds(),
    "csd": LossNeeds(guided=False),
    "nfsd": LossNeeds(guided=False, bad_prompt=True),
    "sdi": LossNeeds(denoised=True),
    "vsd": LossNeeds(render_model=True),
}
"""The losses; `diffusion.guidance.distillation_losses.DIRECTIONS` says what each of them descends against."""


class ViewPromptsConfig(Section):
    """How prompts name the view of a camera: overhead above 60 degrees, else front, side or back by quadrant."""

    words: bool = True
    """Add the view's word to the prompt of a view that has none of its own, as in `a photo of a red dog, side view`."""
    front: Filled | None = None
    """The whole prompt of front views; nothing for the prompt with the view's word, where words are on."""
    side: Filled | None = None
    """Likewise, of views from a side."""
    back: Filled | None = None
    """Likewise, of views from behind."""
    overhead: Filled | None = None
    """Likewise, of views from above."""


class GuidanceConfig(Section):
    """Score distillation."""

    loss: LossName = "sds"
    """Direction of the latents' gradient. sds: guided noise prediction - noise. sjc: the same over sigma, which is the
    score of the blurred images. csd: guidance_scale * (conditional - unconditional). nfsd: that, and away from bad
    images. sdi: sds with noise from DDIM inversion of the render. vsd: guided prediction - that of a LoRA which is
    trained on the renders alongside."""
    guidance_scale: Range = (7.5, 7.5)
    """Classifier-free guidance scale at the start and at the end."""
    max_timestep: ShareRange = (0.98, 0.5)
    """Largest timestep as a share of all, at the start and at the end."""
    min_timestep: ShareRange = (0.02, 0.02)
    """Smallest timestep as a share of all, at the start and at the end."""
    timestep_annealing: Literal["linear", "sqrt"] = "linear"
    """How the two go from start to end: evenly, or by the square root of the share of the stage, as in HiFA."""
    weighting: Literal["sds", "uniform", "denoised", "fantasia3d"] = "sds"
    """w(t): sds is 1 - alpha_bar, uniform is 1. denoised is sqrt((1 - alpha_bar) / alpha_bar), with which the loss is
    half the squared distance to the denoised latents, as in MVDream. fantasia3d is sqrt(alpha_bar) (1 - alpha_bar)."""
    image_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the same gradient in the images' own space, towards the picture of the denoised latents, as in HiFA. A
    decoder's pass per step; with loss sds and sdi."""
    view_prompts: ViewPromptsConfig = ViewPromptsConfig()
    perp_neg: bool = False
    """Perp-Neg: subtract the perpendicular part of the other views' scores."""
    perp_neg_weight: Annotated[float, Field(ge=0)] = 1.0
    """Strength of the Perp-Neg term."""
    negative_prompt: str = ""
    """Prompt of the unconditional branch."""
    rescale: Share = 0.0
    """Rescaling of the guided score towards the conditional one's spread (0 off), against over-saturation."""
    variance_reduction: bool = True
    """With loss sjc: subtract the noise that was added, which has no part in the score's mean, from what the model sees
    in the noisy image; without, the gradient is the score itself."""
    gradient_clip: tuple[_Magnitude, _Magnitude] | None = None
    """Clip each element of the gradient to this magnitude, at the start and at the end; a rising one keeps early steps
    from pulling all views to one (score debiasing, Hong et al. 2023)."""
    nfsd_negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
    )
    """With loss nfsd: prompt of bad images, subtracted from the unconditional branch at all but weak noise."""
    inversion_steps: Positive = 5
    """With loss sdi: DDIM steps from a render to its noise, each of which costs as much as a whole step of sds."""
    inversion_guidance_scale: float = -7.5
    """With loss sdi: guidance scale of the inversion; the paper's is minus the guidance_scale."""
    acceleration: Acceleration = "graphs"
    """How UNet and VAE encoder run on CUDA: graphs launches each as one CUDA graph; compile fuses their kernels before,
    which takes minutes the first time and pays for models of Stable Diffusion's size; none calls them as they are."""
    lora_rank: Positive = 4
    """With loss vsd: rank of the LoRA."""
    lora_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """With loss vsd: learning rate of the LoRA, which takes one step of AdamW with each of the field's."""

    @property
    def needs(self) -> LossNeeds:
        """What the loss asks of the rest of the configuration."""
        return LOSSES[self.loss]

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> Self:
        if self.image_weight > 0 and not self.needs.denoised:
            names = " or ".join(name for name, needs in LOSSES.items() if needs.denoised)
            raise ValueError(
                f"image_weight compares with a denoised image, of which loss={self.loss} knows nothing: set "
                f"image_weight=0, or loss to {names}"
            )
        if self.rescale > 0 and not self.needs.guided:
            *others, last = [name for name, needs in LOSSES.items() if needs.guided]
            raise ValueError(
                f"rescale changes a guided prediction, and loss={self.loss} takes only differences of predictions: "
                f"set rescale=0, or loss to {', '.join(others)} or {last}"
            )
        if self.needs.bad_prompt and self.nfsd_negative_prompt == self.negative_prompt:
            raise ValueError(
                f"loss={self.loss} needs two prompts, and nfsd_negative_prompt is the same as negative_prompt: let the "
                "former describe bad images"
            )
        return self


class EditGuidanceConfig(GuidanceConfig):
    """The same for a context: first from noise that hides the old colours, in the end gently."""

    guidance_scale: Range = (7.5, 3.0)
    """Classifier-free guidance scale at the start and at the end."""
    max_timestep: ShareRange = (0.8, 0.2)
    """Largest timestep as a share of all, at the start and at the end."""
