"""The loss' arithmetic, against diffusers' scheduler and against what Min-SNR weighting means."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from dreambooth3d.diffusion.finetuning.denoising_loss import add_noise, min_snr_weights, squared_errors, training_target

GAMMA = 5.0


@pytest.fixture
def scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion."""
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise and timesteps of six images."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=generator)
    return latents, noise, torch.tensor([0, 20, 200, 500, 900, 999])


def test_noise_and_targets_are_the_scheduler_s(scheduler: DDIMScheduler, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, noise, timesteps = batch
    alphas = scheduler.alphas_cumprod[timesteps]
    assert torch.equal(add_noise(latents, noise, alphas), scheduler.add_noise(*batch))
    assert torch.equal(training_target(latents, noise, alphas, "epsilon"), noise)
    assert torch.equal(training_target(latents, noise, alphas, "v_prediction"), scheduler.get_velocity(*batch))


def test_min_snr_weights_are_the_formula(scheduler: DDIMScheduler) -> None:
    snr = compute_snr(scheduler, torch.arange(1000))
    capped = torch.minimum(snr, torch.full_like(snr, GAMMA))
    epsilon = min_snr_weights(scheduler.alphas_cumprod, GAMMA, "epsilon")
    velocity = min_snr_weights(scheduler.alphas_cumprod, GAMMA, "v_prediction")
    assert torch.allclose(epsilon, capped / snr, rtol=1e-4)
    assert torch.allclose(velocity, capped / (snr + 1), rtol=1e-4)
    assert min_snr_weights(torch.tensor([0.5, 0.0]), GAMMA, "epsilon").tolist() == [1.0, 1.0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_clean_image_s_error_alike_for_both_predictions(
    scheduler: DDIMScheduler, batch: tuple[Tensor, Tensor, Tensor], prediction_type: str
) -> None:
    latents, noise, timesteps = batch
    alphas = scheduler.alphas_cumprod.double()[timesteps]
    signal, spread = alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1)
    noisy = add_noise(latents.double(), noise.double(), alphas)
    guess = latents.double() + 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    implied = (noisy - signal * guess) / spread
    output = implied if prediction_type == "epsilon" else signal * implied - spread * guess
    target = training_target(latents.double(), noise.double(), alphas, prediction_type)
    errors = (output - target).square().mean(dim=(1, 2, 3))
    weights = min_snr_weights(scheduler.alphas_cumprod.double(), GAMMA, prediction_type)[timesteps]
    snr = alphas / (1 - alphas)
    expected = snr.clamp(max=GAMMA) * (guess - latents).square().mean(dim=(1, 2, 3))
    assert torch.allclose(weights * errors, expected)


def test_errors_are_per_image() -> None:
    output, target = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = [torch.nn.functional.mse_loss(*pair) for pair in zip(output, target, strict=True)]
    assert torch.allclose(squared_errors(output, target), torch.stack(expected))


def test_weighted_pixels_make_a_weighted_mean() -> None:
    output, target = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    weights = torch.zeros(2, 1, 6, 6)
    weights[0, :, :3], weights[1] = 2.0, 0.5
    errors = squared_errors(output, target, weights)
    by_hand = [(output - target)[0, :, :3].square().mean(), (output - target)[1].square().mean()]
    torch.testing.assert_close(errors, torch.stack(by_hand))
