"""Sample grids: how a model under training draws the subject from each side."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, sample
from dreambooth3d.images import captioned, sheet
from dreambooth3d.prompts import view_prompt

SAMPLES_PER_VIEW = 2


def sample_grid(
    components: Components, photos: SubjectPhotos, config: TrainerConfig, seed: int
) -> UInt8[Tensor, "height width 3"]:
    """A sheet of the subject under each view prompt, one column per view word.

    Args:
        components: may be under training; left in the mode that they were in.
        photos: tell the subject's prompt.
        config: guidance scale, steps and batch size of the samples.
        seed: of the initial noise.
    """
    sampling = Sampling(
        config.sample_guidance_scale, config.sample_inference_steps, seed, batch_size=config.sample_batch_size
    )
    words = [word for _ in range(SAMPLES_PER_VIEW) for word in VIEW_WORDS]
    prompts = [view_prompt(photos.instance_prompt, word) for word in words]
    training = components.unet.training, components.text_encoder.training
    components.unet.eval()
    components.text_encoder.eval()
    images = sample(components, prompts, sampling)
    components.unet.train(training[0])
    components.text_encoder.train(training[1])
    components.forget_prompts()
    grid = sheet(captioned(images, words), len(VIEW_WORDS))
    return (grid.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
