"""Pseudo views: renders of a coarse asset, turned into pictures of the subject by part of the denoising schedule."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.cameras import Cameras
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.sampling.text_to_image import BATCH_SIZE, denoise, initial_noise, make_schedule
from dreambooth3d.images import sheet
from dreambooth3d.prompts import view_prompts
from dreambooth3d.runtime import Runtime


@torch.no_grad()
def img2img(
    components: Components,
    images: Tensor,
    prompts: list[str],
    *,
    strength: float,
    guidance_scale: float,
    steps: int,
    seed: int,
    negative_prompt: str = "",
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """Redo the last `strength` of the denoising schedule of given images.

    Args:
        images: (n, 3, height, width) in [0, 1]; resized to the model's size.
        prompts: n prompts.
        strength: share of the schedule in [0, 1]; 0 gives the VAE's round trip, 1 keeps almost nothing.
        steps: denoising steps of the full schedule, of which `int(steps * strength)` are run.

    Returns:
        (n, 3, size, size) in [0, 1] on the components' device.

    Source: SDEdit (Meng et al. 2022), with the timesteps of diffusers' StableDiffusionImg2ImgPipeline.
    """
    noise = initial_noise(components, len(images), seed)
    scheduler = make_schedule(components, steps)
    timesteps = scheduler.timesteps[steps - min(int(steps * strength), steps) :]
    results = []
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        latents = components.encode_all(images[chosen])
        if len(timesteps):
            latents = scheduler.add_noise(latents, noise[chosen].to(components.device), timesteps[:1])
            latents = denoise(
                components,
                latents,
                prompts[chosen],
                scheduler,
                timesteps,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
            )
        results.append(components.decode_latents(latents))
    return torch.cat(results)


def pseudo_views(
    renders: Tensor,
    opacity: Tensor,
    cameras: Cameras,
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    config: PseudoViewsConfig,
    seed: int,
    runtime: Runtime,
) -> PseudoViews:
    """Turn renders into pseudo views of the subject with the full checkpoint, each under its view's prompt.

    What comes back may have another background than the render: a checkpoint that has seen the photos for long tends
    to invent theirs. Nothing is masked here; whoever learns from the views decides what of them counts.

    Args:
        renders: (n, 3, height, width) in [0, 1] on a plain background, of any size.
        opacity: (n, height, width) of the renders.
        cameras: the n cameras.
        checkpoint: the full checkpoint.
        seed: of the noise.

    Returns:
        Images, renders and opacity at the model's size, on the CPU.
    """
    components = load_components(checkpoint.base_model, runtime.device, checkpoint)
    size = components.image_size
    renders, opacity = _resized(renders, size), _resized(opacity[:, None], size)[:, 0]
    images = img2img(
        components,
        renders,
        view_prompts(photos.instance_prompt, cameras),
        strength=config.strength,
        guidance_scale=config.guidance_scale,
        steps=config.inference_steps,
        seed=seed,
        batch_size=config.batch_size,
    ).cpu()
    runtime.log.params(strength=config.strength, count=len(cameras), checkpoint_step=checkpoint.step)
    _report(renders, images, opacity, runtime)
    return PseudoViews(images, renders, opacity, cameras.to("cpu"), config.strength, runtime.log.record())


def _resized(images: Tensor, size: int) -> Tensor:
    """Images (n, c, h, w) at (n, c, size, size) on the CPU, in [0, 1]."""
    images = images.detach().float().cpu()
    if images.shape[-2:] != (size, size):
        images = interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(0, 1)


def _report(renders: Tensor, images: Tensor, opacity: Tensor, runtime: Runtime) -> None:
    """Log how much img2img changed, inside and outside of the subject, and a sheet of rows before and after."""
    change = (images - renders).abs().mean(1)
    inside, outside = (opacity > 0.5).float(), (opacity <= 0.5).float()
    runtime.log.metrics(
        mean_abs_change=change.mean(),
        subject_change=(change * inside).sum() / inside.sum().clamp_min(1),
        background_change=(change * outside).sum() / outside.sum().clamp_min(1),
    )
    columns = min(10, len(images))
    rows = [part[start : start + columns] for start in range(0, len(images), columns) for part in (renders, images)]
    padded = [torch.cat([row, row.new_ones(columns - len(row), *row.shape[1:])]) for row in rows]
    runtime.log.image("before_after", sheet(torch.cat(padded), columns))
