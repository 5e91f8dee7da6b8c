"""The losses of score distillation on Gaussian data, where every prediction, score and trajectory is known by hand.

The images of a prompt are normal around its mean with standard deviation `SPREAD`. Noisy images are then normal with
variance v = a * SPREAD^2 + 1 - a, and the best noise prediction is sqrt(1 - a) * (x - sqrt(a) * mean) / v.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.config.guidance import LOSSES, GuidanceConfig, LossName
from dreambooth3d.diffusion.guidance import distillation_losses as losses
from dreambooth3d.diffusion.guidance.distillation_losses import Noised, Predictions
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.components import Components

PROMPT = "a photo of a sks dog"
CAMERAS = orbit_cameras(torch.tensor([0.0, 90.0, 180.0]))
SPREAD = 0.4
SCALE = 3.0
# The noise schedule of Stable Diffusion.
SCHEDULE = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
WANTED, PLAIN, BAD, LATENTS, NOISE = np.random.default_rng(0).normal(size=(5, 2, 4, 3, 3))


def best_noise(noisy: Tensor, timesteps: Tensor, mean: Tensor, schedule: Tensor, spread: float = SPREAD) -> Tensor:
    """What a perfect model of one prompt predicts."""
    alpha = schedule.to(noisy)[timesteps].view(-1, 1, 1, 1)
    return (1 - alpha).sqrt() * (noisy - alpha.sqrt() * mean.to(noisy)) / (alpha * spread**2 + 1 - alpha)


def denoiser(mean: NDArray, spread: float = SPREAD) -> losses.Denoise:
    return partial(best_noise, mean=torch.from_numpy(mean), schedule=torch.from_numpy(SCHEDULE), spread=spread)


def predictor(wanted: NDArray = WANTED, plain: NDArray = PLAIN, scale: float = SCALE) -> losses.Predict:
    """A perfect model under classifier-free guidance."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Predictions:
        conditional, unconditional = denoiser(wanted)(noisy, timesteps), denoiser(plain)(noisy, timesteps)
        return Predictions(unconditional, conditional, unconditional + scale * (conditional - unconditional))

    return predict


def noised(timesteps: tuple[int, int], latents: NDArray = LATENTS, noise: NDArray = NOISE) -> Noised:
    alpha = torch.from_numpy(SCHEDULE[list(timesteps)]).view(-1, 1, 1, 1)
    return Noised(torch.from_numpy(latents), torch.tensor(timesteps), alpha, torch.from_numpy(noise))


def alphas(timesteps: tuple[int, int]) -> NDArray:
    return SCHEDULE[list(timesteps)].reshape(-1, 1, 1, 1)


def test_sjc_is_the_score_of_the_blurred_images() -> None:
    """Images of variance SPREAD^2, blurred by sigma, are normal: their score is known without any diffusion model."""
    times = (40, 700)
    sigma = np.sqrt((1 - alphas(times)) / alphas(times))
    gradient = losses.sjc(noised(times), predictor(scale=1.0)).numpy()
    score = -(LATENTS + sigma * NOISE - WANTED) / (SPREAD**2 + sigma**2)
    np.testing.assert_allclose(gradient, -score - NOISE / sigma, rtol=1e-9)
    # The noise's own term averages out. The score is linear, so a noise and its opposite give the expectation exactly.
    mean = (gradient + losses.sjc(noised(times, noise=-NOISE), predictor(scale=1.0)).numpy()) / 2
    np.testing.assert_allclose(mean, (LATENTS - WANTED) / (SPREAD**2 + sigma**2), rtol=1e-9)


def test_sjc_without_variance_reduction_is_the_score_itself() -> None:
    """With the same mean over the noise, and far more variance."""
    times = (40, 700)
    sigma = np.sqrt((1 - alphas(times)) / alphas(times))
    gradient = losses.sjc(noised(times), predictor(scale=1.0), variance_reduction=False).numpy()
    np.testing.assert_allclose(gradient, (LATENTS + sigma * NOISE - WANTED) / (SPREAD**2 + sigma**2), rtol=1e-9)
    noises = np.random.default_rng(1).normal(size=(200, *LATENTS.shape))
    plain, reduced = (
        np.stack([losses.sjc(noised(times, noise=noise), predictor(scale=1.0), kind).numpy() for noise in noises])
        for kind in (False, True)
    )
    close = 4 * plain.std(axis=0) / np.sqrt(len(noises))
    assert (np.abs(plain.mean(axis=0) - (LATENTS - WANTED) / (SPREAD**2 + sigma**2)) < close).mean() > 0.99
    assert (reduced[:, 1].std() < plain[:, 1].std()) and not np.allclose(plain, reduced)


def test_sjc_is_sds_over_sigma() -> None:
    sample = noised((40, 700))
    sigma = ((1 - sample.alpha) / sample.alpha).sqrt()
    torch.testing.assert_close(losses.sjc(sample, predictor()) * sigma, losses.sds(sample, predictor()))


def classifier(times: tuple[int, int], away: NDArray, towards: NDArray) -> NDArray:
    """By hand: the prediction for images around `towards` minus that for images around `away`, whatever the input."""
    alpha = alphas(times)
    return np.sqrt(alpha * (1 - alpha)) * (away - towards) / (alpha * SPREAD**2 + 1 - alpha)


def test_csd_is_the_classifier_s_score_alone() -> None:
    times = (40, 700)
    expected = SCALE * classifier(times, away=PLAIN, towards=WANTED)
    for sample in (noised(times), noised(times, latents=-LATENTS, noise=NOISE[::-1].copy())):
        np.testing.assert_allclose(losses.csd(sample, predictor()).numpy(), expected, rtol=1e-9)


def test_csd_is_zero_for_the_same_prompt_twice() -> None:
    gradient = losses.csd(noised((40, 700)), predictor(wanted=PLAIN))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_nfsd_subtracts_bad_images_where_noise_is_strong() -> None:
    times = (199, 200)
    gradient = losses.nfsd(noised(times), predictor(), denoiser(BAD), 200).numpy()
    alpha = alphas(times)
    noisy = np.sqrt(alpha) * LATENTS + np.sqrt(1 - alpha) * NOISE
    plain = np.sqrt(1 - alpha) * (noisy - np.sqrt(alpha) * PLAIN) / (alpha * SPREAD**2 + 1 - alpha)
    expected = SCALE * classifier(times, away=PLAIN, towards=WANTED)
    expected[0] += plain[0]
    expected[1] += classifier(times, away=BAD, towards=PLAIN)[1]
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)


def test_nfsd_is_free_of_noise() -> None:
    """Above the threshold nothing of the noise is left, where SDS still has all of it."""
    one, other = noised((200, 900)), noised((200, 900), noise=-NOISE)
    gradients = [losses.nfsd(sample, predictor(), denoiser(BAD), 200) for sample in (one, other)]
    torch.testing.assert_close(*gradients)
    assert (losses.sds(one, predictor()) - losses.sds(other, predictor())).abs().max() > 0.1


def exact_flow(times: tuple[int, ...], latents: NDArray, mean: NDArray = WANTED, spread: float = SPREAD) -> NDArray:
    """By hand: DDIM's flow from timestep 0 shifts and stretches a normal distribution, and all that is in it."""
    alpha, first = alphas(times), SCHEDULE[0]
    stretch = np.sqrt((alpha * spread**2 + 1 - alpha) / (first * spread**2 + 1 - first))
    return np.sqrt(alpha) * mean + stretch * (latents - np.sqrt(first) * mean)


def noise_in(noisy: NDArray, times: tuple[int, ...], latents: NDArray) -> NDArray:
    """The noise by which `noisy` differs from `latents`."""
    return (noisy - np.sqrt(alphas(times)) * latents) / np.sqrt(1 - alphas(times))


def invert(times: tuple[int, int], denoise: losses.Denoise, steps: int) -> NDArray:
    schedule = torch.from_numpy(SCHEDULE)
    return losses.inverted_noise(noised(times), denoise, schedule, schedule[0], steps).numpy()


def test_inversion_follows_the_exact_flow() -> None:
    """The error is that of a first-order method: it falls with the number of steps, to nothing."""
    times = (300, 700)
    exact = noise_in(exact_flow(times, LATENTS), times, LATENTS)
    errors = [np.abs(invert(times, denoiser(WANTED), steps) - exact).max() for steps in (100, 200, 400)]
    assert errors[2] < 0.6 * errors[1] < 0.6 * 0.6 * errors[0]
    assert errors[2] < 0.1


@pytest.mark.parametrize("steps", [1, 7])
def test_inversion_is_exact_for_a_single_image(steps: int) -> None:
    """A model that knows one image only predicts the same noise all along, so that few steps do."""
    times = (300, 700)
    exact = noise_in(exact_flow(times, LATENTS, spread=0.0), times, LATENTS)
    np.testing.assert_allclose(invert(times, denoiser(WANTED, 0.0), steps), exact, rtol=1e-9)


def test_ddim_turns_the_inverted_noise_into_the_latents(components: Components) -> None:
    """Denoised by diffusers' own DDIM, the noise of SDI leads back to the latents, and other noise does not."""
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    embeddings = components.encode_prompts([PROMPT] * 2)
    denoise = partial(components.predict_noise, embeddings=embeddings)
    scheduler = DDIMScheduler.from_config(components.scheduler.config, steps_offset=0)
    scheduler.set_timesteps(50)
    start, timesteps = 500, torch.tensor([500, 500])
    schedule, alpha = components.alphas_cumprod, components.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    random = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    errors = []
    with torch.no_grad():
        sample = Noised(latents, timesteps, alpha, random)
        inverted = losses.inverted_noise(sample, denoise, schedule, scheduler.final_alpha_cumprod, steps=25)
        for noise in (inverted, random):
            state = Noised(latents, timesteps, alpha, noise).noisy
            for timestep in scheduler.timesteps[scheduler.timesteps <= start]:
                state = scheduler.step(components.predict(state, timestep, embeddings), timestep, state).prev_sample
            errors.append(float((state - latents).norm() / latents.norm()))
    assert errors[0] < 0.05
    assert errors[1] > 10 * errors[0]


def test_sdi_leaves_the_best_image_alone() -> None:
    """At the mean the prediction agrees with the flow's noise, while SDS pushes it about with every other noise."""
    best, predict, schedule = noised((300, 700), latents=WANTED), predictor(scale=1.0), torch.from_numpy(SCHEDULE)
    assert losses.sds(best, predict).abs().max() > 0.1
    # Not quite zero, as the model is asked about clean latents as if they were at timestep 0.
    assert losses.sdi(best, predict, denoiser(WANTED), schedule, torch.tensor(1.0), 4).abs().max() < 1e-2


def test_vsd_is_the_difference_of_two_scores() -> None:
    """A perfect model of renders that are normal around another mean: only the means' difference is left."""
    times = (40, 700)
    gradient = losses.vsd(noised(times), predictor(scale=1.0), denoiser(PLAIN)).numpy()
    np.testing.assert_allclose(gradient, classifier(times, away=PLAIN, towards=WANTED), rtol=1e-9)
    done = losses.vsd(noised(times), predictor(scale=1.0), denoiser(WANTED))
    np.testing.assert_allclose(done.numpy(), 0.0, atol=1e-12)


class GaussianUNet(torch.nn.Module):
    """A perfect model of three prompts' Gaussian images, told apart by their embeddings; noise or velocity."""

    def __init__(self, components: Components, means: dict[str, Tensor], velocity: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(sample_size=16, in_channels=4)
        self.embeddings = components.encode_prompts(list(means))
        self.means, self.schedule, self.velocity = (
            torch.stack(list(means.values())),
            components.alphas_cumprod,
            velocity,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        rows = torch.cdist(encoder_hidden_states.flatten(1), self.embeddings.flatten(1)).argmin(1)
        alpha = self.schedule[timesteps].view(-1, 1, 1, 1)
        noise = best_noise(noisy, timesteps, self.means[rows], self.schedule)
        clean = (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return SimpleNamespace(sample=alpha.sqrt() * noise - (1 - alpha).sqrt() * clean if self.velocity else noise)


VIEWS = [f"{PROMPT}, {word} view" for word in ("front", "side", "back")]


def gaussian_components(components: Components, velocity: bool) -> Components:
    """The tiny model with a Gaussian UNet and without a VAE: the images are the latents."""
    means = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    unet = GaussianUNet(components, dict(zip([*VIEWS, "", "a red cat"], means, strict=True)), velocity)
    kind = "v_prediction" if velocity else "epsilon"
    scheduler = DDIMScheduler.from_config(components.scheduler.config, prediction_type=kind)
    parts = {
        name: getattr(components, name) for name in ("tokenizer", "text_encoder", "vae", "base", "device", "dtype")
    }
    model = Components(**parts, unet=unet, scheduler=scheduler)
    model.encode_images = lambda images: images
    return model


def start_latents() -> Tensor:
    return torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(4))


def gradient_of(components: Components, config: GuidanceConfig, progress: float = 0.0) -> Tensor:
    """(3, 4, 16, 16) gradient of each image's latents, times the number of images."""
    latents = start_latents().requires_grad_()
    ScoreDistillation(components, PROMPT, config, seed=0)(latents, CAMERAS, progress).loss.backward()
    return latents.grad * 3


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize("loss", ["csd", "nfsd"])
@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_guidance_by_classifier_scores(components: Components, loss: str, velocity: bool, weighting: str) -> None:
    """Annealed scale and timestep, weight, views and both kinds of model, against the gradient by hand."""
    model = gaussian_components(components, velocity)
    config = GuidanceConfig(
        loss=loss,
        weighting=weighting,
        guidance_scale=(2.0, 6.0),
        min_timestep=(0.3, 0.5),
        max_timestep=(0.3, 0.5),
        nfsd_negative_prompt="a red cat",
    )
    alpha = float(model.alphas_cumprod[400])
    *views, plain, bad = model.unet.means
    direction = 4.0 * (plain - torch.stack(views)) + (bad - plain if loss == "nfsd" else 0.0)
    direction = direction * (alpha * (1 - alpha)) ** 0.5 / (alpha * SPREAD**2 + 1 - alpha)
    weight = 1 - alpha if weighting == "sds" else 1.0
    torch.testing.assert_close(gradient_of(model, config, progress=0.5), weight * direction, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_guidance_by_the_denoised_image_is_that_by_the_noise(components: Components, weighting: str) -> None:
    """One noise per image, one weight: what the chain rule leads back is the gradient of SDS over sigma."""
    at = {"min_timestep": (0.4, 0.4), "max_timestep": (0.4, 0.4), "guidance_scale": (3.0, 3.0), "weighting": weighting}
    model = Components(
        **{
            name: getattr(components, name)
            for name in ("tokenizer", "text_encoder", "vae", "unet", "scheduler", "base", "device", "dtype")
        }
    )
    model.encode_images = lambda images: images
    by_noise, by_image, unreduced = (
        gradient_of(model, GuidanceConfig(**at, **kind))
        for kind in ({"loss": "sds"}, {"loss": "sjc"}, {"loss": "sjc", "variance_reduction": False})
    )
    alpha = float(model.alphas_cumprod[400])
    sigma = ((1 - alpha) / alpha) ** 0.5
    torch.testing.assert_close(by_image * sigma, by_noise, rtol=1e-4, atol=1e-5)
    # Without variance reduction the noise itself is left in it.
    torch.testing.assert_close(
        (unreduced - by_image) * sigma / (1 - alpha if weighting == "sds" else 1.0), drawn_noise(), rtol=1e-3, atol=1e-4
    )


def drawn_noise() -> Tensor:
    """The noise that guidance with the seed 0 draws for the three images, after their timesteps."""
    generator = torch.Generator().manual_seed(0)
    torch.randint(1, 2, (3,), generator=generator)
    return torch.randn(3, 4, 16, 16, generator=generator)


@pytest.mark.parametrize("velocity", [False, True])
def test_guidance_by_inversion(components: Components, velocity: bool) -> None:
    """Guidance of Gaussians moves their mean only, so that the flow of the inversion is known for its own scale too."""
    model = gaussian_components(components, velocity)
    config = GuidanceConfig(
        loss="sdi",
        weighting="uniform",
        guidance_scale=(2.0, 2.0),
        min_timestep=(0.4, 0.4),
        max_timestep=(0.4, 0.4),
        inversion_steps=400,
        inversion_guidance_scale=-1.5,
    )
    *views, plain, _ = model.unet.means.double().numpy()
    times, latents = (400, 400, 400), start_latents().double().numpy()
    towards, inverse = (plain + scale * (np.stack(views) - plain) for scale in (2.0, -1.5))
    noisy, alpha = exact_flow(times, latents, inverse), alphas(times)
    predicted = np.sqrt(1 - alpha) * (noisy - np.sqrt(alpha) * towards) / (alpha * SPREAD**2 + 1 - alpha)
    expected = predicted - noise_in(noisy, times, latents)
    np.testing.assert_allclose(gradient_of(model, config).numpy(), expected, atol=0.02 * np.abs(expected).max())


def test_guidance_by_the_blurred_score(components: Components) -> None:
    """With the same draws, SJC is SDS over sigma."""
    model = gaussian_components(components, velocity=False)
    at = {"min_timestep": (0.4, 0.4), "max_timestep": (0.4, 0.4), "rescale": 0.5}
    sds, sjc = (gradient_of(model, GuidanceConfig(loss=loss, **at)) for loss in ("sds", "sjc"))
    alpha = model.alphas_cumprod[400]
    torch.testing.assert_close(sjc, sds * (alpha / (1 - alpha)).sqrt(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("perp_neg", [False, True])
def test_sds_is_csd_and_the_prior(components: Components, perp_neg: bool) -> None:
    """Perp-Neg's terms are in both, so that SDS - CSD is w(t) * (unconditional prediction - noise)."""
    latents, timesteps = start_latents(), torch.tensor([100, 500, 900])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    sds, csd = (
        ScoreDistillation(components, PROMPT, GuidanceConfig(loss=loss, perp_neg=perp_neg), seed=0)._gradients(
            latents, timesteps, noise, CAMERAS, 0.0
        )[0]
        for loss in ("sds", "csd")
    )
    alpha = components.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    with torch.no_grad():
        plain = components.unet(noisy, timesteps, encoder_hidden_states=components.encode_prompts([""] * 3)).sample
    torch.testing.assert_close(sds - csd, (1 - alpha) * (plain - noise), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["sjc", "csd", "nfsd", "sdi", "vsd"])
def test_clip_holds_for_every_loss(components: Components, loss: str) -> None:
    config = GuidanceConfig(loss=loss, gradient_clip=(0.01, 0.01), perp_neg=True)
    guidance = ScoreDistillation(components, PROMPT, config, seed=0)
    latents, noise = start_latents(), torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    gradient = guidance._gradients(latents, torch.tensor([100, 500, 900]), noise, CAMERAS, 0.0)[0]
    assert gradient.abs().max() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss": "csd", "rescale": 0.5}, "rescale changes a guided prediction, and loss=csd"),
        ({"loss": "nfsd", "rescale": 0.5}, "rescale changes a guided prediction, and loss=nfsd"),
        ({"loss": "nfsd", "nfsd_negative_prompt": ""}, "nfsd_negative_prompt is the same as negative_prompt"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        GuidanceConfig(**settings)


def test_every_loss_has_its_needs_and_its_direction() -> None:
    assert get_args(LossName) == tuple(LOSSES) == tuple(losses.DIRECTIONS)
