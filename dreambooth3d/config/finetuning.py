"""DreamBooth fine-tuning, its multi-view continuation, and the choice of checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dreambooth3d.config.base import Acceleration, Count, Decay, Filled, Positive, Section, Share


class TrainerConfig(Section):
    """What DreamBooth fine-tuning and its multi-view continuation share: all that the trainer needs to know."""

    steps: Positive
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Linear warm-up."""
    batch_size: Positive = 4
    """Images per step; with prior preservation as many class images come on top."""
    train_text_encoder: bool = True
    """Also train the text encoder."""
    text_encoder_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the text encoder; by default that of the UNet."""
    lora_rank: Count = 0
    """Rank of a LoRA on the attention's projections, which is trained in place of the weights; its alpha equals the
    rank. With mixed_precision the frozen weights are kept in half precision. 0 trains all weights."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw_8bit keeps the optimiser's state in 8 bits; it needs the package bitsandbytes."""
    adam_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decay of its first and second moment."""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1.0e-8
    """AdamW's epsilon."""
    weight_decay: Annotated[float, Field(ge=0)] = 1.0e-2
    """AdamW weight decay."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient."""
    gradient_accumulation_steps: Positive = 1
    """Batches per optimiser step, whose mean gradient it takes."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Passed to accelerate."""
    acceleration: Acceleration = "none"
    """How forward and backward pass run on CUDA: graphs launches both as one CUDA graph; compile fuses their kernels
    before, which takes minutes the first time; none calls them as they are, as happens also with several processes,
    gradient_accumulation_steps or gradient_checkpointing."""
    processes: Positive = 1
    """Processes that train together, each on a GPU and on batch_size images of its own."""
    snr_gamma: Annotated[float, Field(gt=0)] | None = None
    """Min-SNR weighting of the loss (Hang et al. 2023): the signal-to-noise ratio above which a timestep's weight
    falls; the paper's is 5. None weighs all timesteps alike."""
    noise_offset: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of an offset per image and channel that is added to the noise; 0 turns it off."""
    ema_decay: Decay = 0.0
    """Decay per step of the exponential moving average of the trained weights, which the checkpoints then hold; it
    warms up as (1 + step) / (10 + step). 0 turns it off."""
    sample_batch_size: Positive = 16
    """Images drawn at once, for class images and sample grids."""
    sample_guidance_scale: float = 4.0
    """Classifier-free guidance scale of the sample grids."""
    sample_inference_steps: Positive = 12
    """Denoising steps of the sample grids."""
    photo_view_prompts: bool = True
    """Train on each photo also under the prompt of its view, as the selector sees it, so that prompts of views that
    the photos show bring the subject."""
    background_augmentation: bool | None = None
    """Train on photos before other backgrounds as well, so that what lies behind the subject is not learned as part of
    it: plain colours in place of smooth backgrounds, also gradients and textures in place of others. None does so where
    a mask is trusted and the background is not smooth, true wherever a mask is trusted, false nowhere."""
    background_share: Share = 0.9
    """Share of the variants of such a photo that have another background."""
    loss_outside_mask: Share = 0.1
    """Weight of the loss outside the subject, against that inside, for photos whose mask is trusted and whose
    background is not smooth. 1 weighs all alike."""

    @model_validator(mode="after")
    def _text_encoder_is_trained(self) -> Self:
        if self.text_encoder_learning_rate is not None and not self.train_text_encoder:
            raise ValueError("text_encoder_learning_rate needs train_text_encoder=true: set it, or remove the former")
        return self


class FinetuneConfig(TrainerConfig):
    """DreamBooth fine-tuning of UNet and text encoder with prior preservation."""

    pretrained: Filled | None = None
    """A folder of fine-tuned models in diffusers' layout, which are taken in place of training: one model, or several
    in sub-folders such as checkpoint-150. Relative to the working directory or the repository. A model whose folder
    names no step counts as step `steps`."""
    steps: Positive = 400
    """Optimiser steps."""
    checkpoint_every: Positive = 50
    """A loadable UNet and text-encoder pair is kept every so many steps."""
    checkpoints_kept: Positive | None = None
    """Only so many of the newest checkpoints are kept, and the one of step 0; None keeps all."""
    learning_rate: Annotated[float, Field(gt=0)] = 5.0e-5
    """Peak learning rate of AdamW."""
    warmup_steps: Count = 10
    """Linear warm-up."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the prior-preservation loss; 0 turns it off."""
    class_images: Positive = 64
    """Images of the class, generated once by the base model and cached by content."""
    class_guidance_scale: float = 3.0
    """Classifier-free guidance scale for the class images."""
    class_inference_steps: Positive = 20
    """Denoising steps for the class images."""
    class_view_prompts: bool = False
    """Also generate class images under view prompts (front, side, back, overhead), so that these keep their meaning."""
    sample_every_checkpoint: bool = True
    """Draw a sample grid per checkpoint under fixed prompts and seeds."""


class SelectConfig(Section):
    """Choice of the partial and the full checkpoint by measurement."""

    partial_step: Positive | None = None
    """Force the partial checkpoint."""
    full_step: Positive | None = None
    """Force the full checkpoint."""
    samples_per_view: Positive = 4
    """Images per view prompt and checkpoint."""
    guidance_scale: float = 4.0
    """Classifier-free guidance scale of the samples."""
    inference_steps: Positive = 15
    """Denoising steps of the samples."""
    batch_size: Positive = 16
    """Samples drawn at once."""
    plateau_tolerance: Share = 0.01
    """full is the first step whose subject similarity is within this share of the best."""


class MultiviewConfig(TrainerConfig):
    """The partial checkpoint fine-tuned further on pseudo and real photos together."""

    steps: Positive = 100
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 3.0e-5
    """Peak learning rate of AdamW."""
    warmup_steps: Count = 5
    """Linear warm-up."""
    real_share: Share = 0.4
    """Share of real photos in a batch."""
