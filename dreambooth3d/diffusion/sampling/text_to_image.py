"""Images from prompts: DDIM with classifier-free guidance, the same on every device for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.model.scores import classifier_free

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

BATCH_SIZE = 16


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        guidance_scale: of classifier-free guidance; 1 or less runs without the unconditional branch.
        steps: denoising steps of the full schedule.
        seed: of the initial noise.
        negative_prompt: of the unconditional branch.
        batch_size: images at once; no image depends on it.
    """

    guidance_scale: float
    steps: int
    seed: int
    negative_prompt: str = ""
    batch_size: int = BATCH_SIZE


def initial_noise(components: Components, count: int, seed: int) -> Float[Tensor, "n channels height width"]:
    """Unit noise of `count` latents, float32, from a generator on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *components.latent_shape, generator=generator)


def make_schedule(components: Components, steps: int) -> DDIMScheduler:
    """A DDIM scheduler of the model's noise schedule, set to `steps` steps."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(components.scheduler.config)
    # The timesteps stay on the CPU: the scheduler looks each up in a CPU table, and must not wait for a GPU to do so.
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def denoise(
    components: Components,
    latents: Float[Tensor, "n channels height width"],
    prompts: Sequence[str],
    sampling: Sampling,
    scheduler: DDIMScheduler,
    timesteps: Int[Tensor, " steps"],
) -> Float[Tensor, "n channels height width"]:
    """Take noisy latents down a list of timesteps by deterministic DDIM (eta 0).

    Args:
        components: the model.
        latents: noisy as `timesteps[0]` says.
        prompts: n prompts.
        sampling: guidance.
        scheduler: from `make_schedule`.
        timesteps: descending, the last of `scheduler.timesteps`.

    Returns:
        Clean latents, float32.
    """
    guided = sampling.guidance_scale > 1
    negative = [sampling.negative_prompt] * len(prompts) if guided else []
    embeddings = components.encode_prompts([*prompts, *negative])
    for timestep in timesteps:
        batch = torch.cat([latents, latents]) if guided else latents
        output = components.predict(batch, timestep, embeddings)
        if guided:
            conditional, unconditional = output.chunk(2)
            output = classifier_free(unconditional, conditional, sampling.guidance_scale)
        latents = scheduler.step(output, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def sample(
    components: Components,
    prompts: Sequence[str],
    sampling: Sampling,
    noise: Float[Tensor, "n channels height width"] | None = None,
) -> Float[Tensor, "n 3 pixels pixels"]:
    """One image per prompt.

    Args:
        components: the model.
        prompts: n prompts; image i depends only on prompt i, its place i and the seed, not on the batch size.
        sampling: how to draw.
        noise: initial noise in place of the seed's.

    Returns:
        Images in [0, 1] on the components' device.
    """
    noise = initial_noise(components, len(prompts), sampling.seed) if noise is None else noise
    scheduler = make_schedule(components, sampling.steps)
    images = []
    for start in range(0, len(prompts), sampling.batch_size):
        chosen = slice(start, start + sampling.batch_size)
        latents = noise[chosen].to(components.device) * scheduler.init_noise_sigma
        latents = denoise(components, latents, prompts[chosen], sampling, scheduler, scheduler.timesteps)
        images.append(components.decode_latents(latents))
    return torch.cat(images)
