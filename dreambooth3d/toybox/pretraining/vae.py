"""Stage 1: the autoencoder, 64x64 images to 16x16x4 latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from dreambooth3d.toybox.pretraining.dataset import Renders
from dreambooth3d.toybox.pretraining.loop import PretrainingLoop, StageRun, half_precision
from dreambooth3d.toybox.pretraining.networks import new_vae

_BATCH = 128
_KL_WEIGHT = 5e-7


def _differences(image: Tensor) -> tuple[Tensor, Tensor]:
    return image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Absolute error, absolute error of the image gradients, and squared error; images (n, 3, h, w) in [-1, 1]."""
    edges = sum((a - b).abs().mean() for a, b in zip(_differences(output), _differences(target), strict=True))
    return (output - target).abs().mean() + 0.5 * edges + 2.0 * (output - target).square().mean()


def train_decoder(renders: Renders, vae: AutoencoderKL, run: StageRun) -> AutoencoderKL:
    """Train the decoder only, so that latents keep their meaning."""
    torch.manual_seed(1)
    device = run.device
    vae = vae.to(device, memory_format=torch.channels_last)
    decoding = [vae.decoder, vae.post_quant_conv]
    for module in decoding:
        module.train().requires_grad_(True)
    training = PretrainingLoop(decoding, run.schedule, run.work, "decoder", compiled=[vae.encoder, vae.decoder])

    def loss_of() -> Tensor:
        target = _random_targets(renders, device)
        with half_precision(device):
            with torch.no_grad():
                latents = vae.encode(target).latent_dist.sample()
            output = vae.decode(latents).sample
        return reconstruction_loss(output.float(), target)

    training.run(loss_of)
    return vae.eval().requires_grad_(False)


def _random_targets(renders: Renders, device: torch.device) -> Tensor:
    """(batch, 3, 64, 64) pictures in [-1, 1]."""
    return renders.images[torch.randint(len(renders), (_BATCH,), device=device)].float() / 127.5 - 1


def train_vae(renders: Renders, run: StageRun) -> AutoencoderKL:
    """Train the autoencoder and set its scaling factor to the inverse spread of the latents."""
    torch.manual_seed(1)
    device = run.device
    vae = new_vae().to(device, memory_format=torch.channels_last)
    training = PretrainingLoop([vae], run.schedule, run.work, "vae", compiled=[vae.encoder, vae.decoder])

    def loss_of() -> Tensor:
        target = _random_targets(renders, device)
        with half_precision(device):
            posterior = vae.encode(target).latent_dist
            output = vae.decode(posterior.sample()).sample
        return reconstruction_loss(output.float(), target) + _KL_WEIGHT * posterior.kl().float().mean()

    training.run(loss_of)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / encode(vae, renders.images[:4096]).std().item(), 5))
    return vae


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, batch: int = 512) -> Tensor:
    """Latent means (n, 4, 16, 16), unscaled, of uint8 images (n, 3, 64, 64)."""
    device = next(vae.parameters()).device
    parts = images.split(batch)
    return torch.cat([vae.encode(part.to(device).float() / 127.5 - 1).latent_dist.mean for part in parts])


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Mean PSNR in dB of decoded latent means over uint8 images (n, 3, 64, 64)."""
    values = []
    for part in images.split(256):
        target = part.to(next(vae.parameters()).device).float() / 255
        output = vae.decode(encode(vae, part)).sample / 2 + 0.5
        values.append(-10 * (output.clamp(0, 1) - target).square().mean(dim=(1, 2, 3)).log10())
    return torch.cat(values).mean().item()
