"""Pseudo views: renders of a coarse asset, turned into pictures of the subject by part of the denoising schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.cameras import Cameras
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, denoise, initial_noise, make_schedule
from dreambooth3d.images import captioned, degrees, sheet
from dreambooth3d.prompts import view_prompts
from dreambooth3d.runtime import Runtime


@dataclass(frozen=True)
class RenderedViews:
    """Renders of an asset, and where they were taken from.

    Attributes:
        color: in [0, 1] on a plain background, of any size.
        opacity: in [0, 1].
        cameras: the n cameras.
    """

    color: Float[Tensor, "n 3 height width"]
    opacity: Float[Tensor, "n height width"]
    cameras: Cameras


@torch.no_grad()
def img2img(
    components: Components,
    images: Float[Tensor, "n 3 height width"],
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    strength: float,
) -> Float[Tensor, "n 3 pixels pixels"]:
    """Redo the last `strength` of the denoising schedule of given images.

    Args:
        components: the model.
        images: in [0, 1]; resized to the model's size.
        prompts: n prompts.
        sampling: how to draw; of its steps `int(steps * strength)` are run.
        strength: share of the schedule in [0, 1]; 0 gives the VAE's round trip, 1 keeps almost nothing.

    Returns:
        Images of the model's size in [0, 1] on the components' device.

    Source: SDEdit (Meng et al. 2022), with the timesteps of diffusers' StableDiffusionImg2ImgPipeline.
    """
    noise = initial_noise(components, len(images), sampling.seed)
    scheduler = make_schedule(components, sampling.steps)
    timesteps = scheduler.timesteps[sampling.steps - min(int(sampling.steps * strength), sampling.steps) :]
    results = []
    for start in range(0, len(images), sampling.batch_size):
        chosen = slice(start, start + sampling.batch_size)
        latents = components.encode_all(images[chosen])
        if len(timesteps):
            latents = scheduler.add_noise(latents, noise[chosen].to(components.device), timesteps[:1])
            latents = denoise(components, latents, prompts[chosen], sampling, scheduler, timesteps)
        results.append(components.decode_latents(latents))
    return torch.cat(results)


def pseudo_views(
    views: RenderedViews,
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
        views: renders of the coarse asset.
        checkpoint: the full checkpoint.
        photos: tell the subject's prompt.
        config: how far the renders are redone.
        seed: of the noise.
        runtime: device and log.

    Returns:
        Images, renders and opacity at the model's size, on the CPU.
    """
    components = load_components(checkpoint.base_model, runtime.device, checkpoint)
    size = components.image_size
    renders, opacity = _resized(views.color, size), _resized(views.opacity[:, None], size)[:, 0]
    prompts = view_prompts(photos.instance_prompt, views.cameras)
    sampling = Sampling(config.guidance_scale, config.inference_steps, seed, batch_size=config.batch_size)
    images = img2img(components, renders, prompts, sampling, strength=config.strength).cpu()
    runtime.log.params(strength=config.strength, count=len(views.cameras), checkpoint_step=checkpoint.step)
    _report(renders, images, opacity, views.cameras, runtime)
    return PseudoViews(images, renders, opacity, views.cameras.to("cpu"), config.strength, runtime.log.record())


def _resized(images: Tensor, size: int) -> Tensor:
    """Images (n, c, h, w) at (n, c, size, size) on the CPU, in [0, 1]."""
    images = images.detach().float().cpu()
    if images.shape[-2:] != (size, size):
        images = interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(0, 1)


def _report(renders: Tensor, images: Tensor, opacity: Tensor, cameras: Cameras, runtime: Runtime) -> None:
    """Log how much img2img changed, inside and outside of the subject, and a sheet of rows before and after."""
    change = (images - renders).abs().mean(1)
    inside, outside = (opacity > 0.5).float(), (opacity <= 0.5).float()
    runtime.log.metrics(
        mean_abs_change=change.mean().item(),
        subject_change=((change * inside).sum() / inside.sum().clamp_min(1)).item(),
        background_change=((change * outside).sum() / outside.sum().clamp_min(1)).item(),
    )
    columns, angles = min(10, len(images)), cameras.azimuth_deg.tolist()
    before, after = (
        captioned(part, [f"{when}, {degrees(angle)}" for angle in angles])
        for when, part in (("before", renders), ("after", images))
    )
    rows = [part[start : start + columns] for start in range(0, len(images), columns) for part in (before, after)]
    padded = [torch.cat([row, row.new_ones(columns - len(row), *row.shape[1:])]) for row in rows]
    runtime.log.image("before_after", sheet(torch.cat(padded), columns))
