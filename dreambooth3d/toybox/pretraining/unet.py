"""Stage 2: the denoiser and its text encoder, trained together on the autoencoder's latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
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
    renders: Renders, vae: AutoencoderKL, tokenizer: CLIPTokenizer, run: StageRun
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train noise prediction on latent means with captions."""
    torch.manual_seed(2)
    device = run.device
    unet = new_unet().to(device, memory_format=torch.channels_last)
    text_encoder = new_text_encoder(tokenizer).to(device)
    both = [unet, text_encoder]
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
