"""The arithmetic of a denoiser's training loss: pure functions of tensors, none of which waits for the device."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def add_noise(
    latents: Float[Tensor, "n channels height width"],
    noise: Float[Tensor, "n channels height width"],
    alphas: Float[Tensor, " n"],
) -> Float[Tensor, "n channels height width"]:
    """Noisy latents, where `alphas` is the share of the signal's variance that is left of each."""
    alphas = alphas.view(-1, 1, 1, 1)
    return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise


def training_target(
    latents: Float[Tensor, "n channels height width"],
    noise: Float[Tensor, "n channels height width"],
    alphas: Float[Tensor, " n"],
    prediction_type: str,
) -> Float[Tensor, "n channels height width"]:
    """What the UNet should put out: the noise, or the velocity of Salimans and Ho (2022).

    Args:
        latents: clean.
        noise: of unit variance.
        alphas: share of the signal's variance that is left of each image.
        prediction_type: `epsilon` or `v_prediction`.
    """
    if prediction_type != "v_prediction":
        return noise
    alphas = alphas.view(-1, 1, 1, 1)
    return alphas.sqrt() * noise - (1 - alphas).sqrt() * latents


def squared_errors(
    output: Float[Tensor, "n channels height width"],
    target: Float[Tensor, "n channels height width"],
    pixel_weights: Float[Tensor, "n 1 height width"] | None = None,
) -> Float[Tensor, " n"]:
    """Mean squared error of each image, float32, over its pixels by their weights."""
    errors = (output.float() - target).square()
    if pixel_weights is None:
        return errors.mean(dim=(1, 2, 3))
    return (errors * pixel_weights).mean(dim=(1, 2, 3)) / pixel_weights.mean(dim=(1, 2, 3))


def min_snr_weights(
    alphas_cumprod: Float[Tensor, " timesteps"], gamma: float, prediction_type: str
) -> Float[Tensor, " timesteps"]:
    """Weights of the squared error of a noise or velocity prediction.

    In terms of the clean image's error the weight is min(SNR, gamma). An error of the noise is SNR times that of the
    image, and an error of the velocity SNR + 1 times.

    Source: Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al. 2023), section 3.4.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)  # min(SNR, gamma) / SNR, also where the last timestep is pure noise
