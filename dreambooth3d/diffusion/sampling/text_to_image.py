"""Images from prompts: DDIM with classifier-free guidance, the same on every device for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.model.scores import classifier_free

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

BATCH_SIZE = 16


def initial_noise(components: Components, count: int, seed: int) -> Tensor:
    """(count, channels, h, w) float32 unit noise from a generator on the CPU."""
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
    latents: Tensor,
    prompts: list[str],
    scheduler: DDIMScheduler,
    timesteps: Tensor,
    *,
    guidance_scale: float,
    negative_prompt: str = "",
) -> Tensor:
    """Take noisy latents (n, channels, h, w) down a list of timesteps by deterministic DDIM (eta 0).

    Args:
        latents: noisy as `timesteps[0]` says.
        prompts: n prompts.
        scheduler: from `make_schedule`.
        timesteps: descending, the last of `scheduler.timesteps`.
        guidance_scale: 1 or less runs without the unconditional branch.

    Returns:
        (n, channels, h, w) float32 clean latents.
    """
    guided = guidance_scale > 1
    embeddings = components.encode_prompts(prompts + ([negative_prompt] * len(prompts) if guided else []))
    for timestep in timesteps:
        batch = torch.cat([latents, latents]) if guided else latents
        output = components.predict(batch, timestep, embeddings)
        if guided:
            conditional, unconditional = output.chunk(2)
            output = classifier_free(unconditional, conditional, guidance_scale)
        latents = scheduler.step(output, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def sample(
    components: Components,
    prompts: list[str],
    *,
    guidance_scale: float,
    steps: int,
    seed: int,
    negative_prompt: str = "",
    batch_size: int = BATCH_SIZE,
    noise: Tensor | None = None,
) -> Tensor:
    """One image per prompt.

    Args:
        prompts: n prompts; image i depends only on prompt i, its place i and the seed, not on `batch_size`.
        guidance_scale: of classifier-free guidance; 1 turns it off.
        steps: denoising steps.
        seed: of the initial noise.
        noise: (n, channels, h, w) initial noise in place of the seed's.

    Returns:
        (n, 3, height, width) in [0, 1] on the components' device.
    """
    noise = initial_noise(components, len(prompts), seed) if noise is None else noise
    scheduler = make_schedule(components, steps)
    images = []
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        latents = noise[chosen].to(components.device) * scheduler.init_noise_sigma
        latents = denoise(
            components,
            latents,
            prompts[chosen],
            scheduler,
            scheduler.timesteps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
        )
        images.append(components.decode_latents(latents))
    return torch.cat(images)
