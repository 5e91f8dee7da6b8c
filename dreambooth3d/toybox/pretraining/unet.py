"""Stage 2: the denoiser and its text encoder, trained together on the autoencoder's latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from dreambooth3d.toybox.pretraining.dataset import Renders
from dreambooth3d.toybox.pretraining.loop import PretrainingLoop, StageRun, half_precision
from dreambooth3d.toybox.pretraining.networks import new_scheduler, new_text_encoder, new_unet
from dreambooth3d.toybox.pretraining.vae import encode

_BATCH = 256
_SNR_GAMMA = 5.0


def snr_weights(alphas_cumprod: Tensor, gamma: float = _SNR_GAMMA) -> Tensor:
    """Min-SNR loss weights (timesteps,) for noise prediction (Hang et al. 2023)."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr


def train_unet(
    renders: Renders,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    run: StageRun,
    start: tuple[UNet2DConditionModel, CLIPTextModel] | None = None,
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train noise prediction on latent means with captions; from random weights where there is no `start`."""
    torch.manual_seed(2)
    device = run.device
    unet, text_encoder = start or (new_unet(), new_text_encoder(tokenizer))
    unet = unet.to(device, memory_format=torch.channels_last)
    both = [unet, text_encoder.to(device)]
    for module in both:
        module.train().requires_grad_(True)
    training = PretrainingLoop(both, run.schedule, run.work, "unet", compiled=both)
    latents = encode(vae, renders.images) * vae.config.scaling_factor
    alphas = new_scheduler().alphas_cumprod.to(device)
    weights = snr_weights(alphas)

    def loss_of() -> Tensor:
        chosen = torch.randint(len(renders), (_BATCH,), device=device)
        variant = torch.randint(renders.tokens.shape[1], (_BATCH,), device=device)
        clean, tokens = latents[chosen], renders.tokens[chosen, variant]
        timestep = torch.randint(len(alphas), (_BATCH,), device=device)
        alpha = alphas[timestep].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        with half_precision(device):
            features = text_encoder(input_ids=tokens).last_hidden_state
            predicted = unet(noisy, timestep, encoder_hidden_states=features).sample
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return (weights[timestep] * error).mean()

    training.run(loss_of)
    return unet.eval().requires_grad_(False), text_encoder.eval().requires_grad_(False)


@torch.no_grad()
def denoising_loss(pipeline: StableDiffusionPipeline, renders: Renders, tokens: Tensor, seed: int = 0) -> float:
    """Weighted squared error of the predicted noise, the same noise and timesteps for the same seed.

    Args:
        pipeline: of the base model.
        renders: pictures.
        tokens: (n, 24) ids of one caption each, of the pipeline's tokenizer.
        seed: of noise and timesteps.
    """
    device, generator = pipeline.device, torch.Generator().manual_seed(seed)
    alphas = new_scheduler().alphas_cumprod.to(device)
    weights = snr_weights(alphas)
    clean = encode(pipeline.vae, renders.images) * pipeline.vae.config.scaling_factor
    timestep = torch.randint(len(alphas), (len(clean),), generator=generator).to(device)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    errors = []
    for rows in torch.arange(len(clean), device=device).split(_BATCH):
        alpha = alphas[timestep[rows]].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean[rows] + (1 - alpha).sqrt() * noise[rows]
        features = pipeline.text_encoder(input_ids=tokens[rows].to(device)).last_hidden_state
        predicted = pipeline.unet(noisy, timestep[rows], encoder_hidden_states=features).sample
        errors.append(weights[timestep[rows]] * (predicted - noise[rows]).square().mean(dim=(1, 2, 3)))
    return torch.cat(errors).mean().item()
