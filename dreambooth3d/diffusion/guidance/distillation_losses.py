"""Score distillation and its variants: what each takes for the gradient with respect to a render's latents.

All of them add noise to latents z at a timestep t, with a = alpha_bar(t), ask the frozen model about the result, and
return the direction to descend against, (n, channels, h, w). The weight w(t) and clipping are left to the caller.
`DIRECTIONS` says which function `guidance.loss` names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreambooth3d.config.guidance import LossName

WEAK_NOISE = 0.2
"""NFSD takes noise for weak below this share of all timesteps."""


@dataclass(frozen=True)
class Predictions:
    """The noise that the frozen model sees in n noisy latents, each (n, channels, h, w).

    Attributes:
        unconditional: under the negative prompt.
        conditional: under each image's view prompt.
        guided: after classifier-free guidance, Perp-Neg and rescaling, as far as they are on.
    """

    unconditional: Tensor
    conditional: Tensor
    guided: Tensor


Predict = Callable[[Tensor, Tensor], Predictions]
"""Noisy latents (n, channels, h, w) and timesteps (n,) to the frozen model's predictions."""
Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy latents (n, channels, h, w) and timesteps (n,) to one prediction of the noise."""


@dataclass(frozen=True)
class Noised:
    """Clean latents of n images, and the noise under which the model sees them.

    Attributes:
        latents: (n, channels, h, w), without gradient.
        timesteps: (n,) on the latents' device.
        alpha: (n, 1, 1, 1) share of the signal's variance at each timestep.
        noise: like `latents`.
    """

    latents: Tensor
    timesteps: Tensor
    alpha: Tensor
    noise: Tensor

    @property
    def noisy(self) -> Tensor:
        """(n, channels, h, w) latents with the noise added, of unit variance where the latents are."""
        return self.alpha.sqrt() * self.latents + (1 - self.alpha).sqrt() * self.noise


def sds(sample: Noised, predict: Predict) -> Tensor:
    """Score Distillation Sampling: guided prediction - noise.

    Source: DreamFusion (Poole et al. 2022), eq. 3, in latent space as in threestudio.
    """
    return predict(sample.noisy, sample.timesteps).guided - sample.noise


def sjc(sample: Noised, predict: Predict, variance_reduction: bool = True) -> Tensor:
    """Score Jacobian Chaining: the score of the images blurred by sigma = sqrt((1 - a) / a), with its sign turned.

    SJC adds noise without shrinking z, x = z + sigma * noise ("variance exploding"). A model that preserves the
    variance is asked about x / sqrt(1 + sigma^2) instead, and the denoised image is D = x - sigma * prediction. The
    score at x is (D - x) / sigma^2. With `variance_reduction` it is (D - z) / sigma^2, which has the same expectation
    over the noise and far less variance. With its sign turned it equals (prediction - noise) / sigma: SDS that weighs
    low noise more.

    The authors' code and threestudio's `use_sjc` divide by sigma rather than by sigma^2, and so do what SDS does with
    w(t) = 1; set loss sds and weighting uniform for that.

    Source: Score Jacobian Chaining (Wang et al. 2023), section 4, Perturb-and-Average Scoring.
    """
    sigma = ((1 - sample.alpha) / sample.alpha).sqrt()
    blurred = sample.latents + sigma * sample.noise
    prediction = predict(blurred / (1 + sigma.square()).sqrt(), sample.timesteps).guided
    denoised = blurred - sigma * prediction
    seen_from = sample.latents if variance_reduction else blurred
    return (seen_from - denoised) / sigma.square()


def csd(sample: Noised, predict: Predict) -> Tensor:
    """Classifier Score Distillation: guidance scale * (conditional - unconditional), without a generative prior.

    With Perp-Neg its terms belong to the classifier's score.

    Source: Text-to-3D with Classifier Score Distillation (Yu et al. 2023), section 4.
    """
    prediction = predict(sample.noisy, sample.timesteps)
    return prediction.guided - prediction.unconditional


def nfsd(sample: Noised, predict: Predict, predict_bad: Denoise, first_noisy_timestep: int) -> Tensor:
    """Noise-Free Score Distillation: delta_D + guidance scale * delta_C, neither with the noise in it.

    delta_C is conditional - unconditional. delta_D leads from bad to good images. Below `first_noisy_timestep` it is
    the unconditional prediction, which holds little noise there; from then on the prediction for bad images, which
    holds the same noise, is subtracted.

    Args:
        predict_bad: the frozen model under a prompt that describes bad images.
        first_noisy_timestep: a fifth of all timesteps in the paper.

    Source: Noise-Free Score Distillation (Katzir et al. 2023), section 4.
    """
    noisy = sample.noisy
    prediction = predict(noisy, sample.timesteps)
    strong = (sample.timesteps >= first_noisy_timestep).view(-1, 1, 1, 1)
    domain = prediction.unconditional - strong * predict_bad(noisy, sample.timesteps)
    return domain + (prediction.guided - prediction.unconditional)


def sdi(
    sample: Noised, predict: Predict, denoise: Denoise, schedule: Tensor, clean_alpha: Tensor, steps: int
) -> Tensor:
    """Score Distillation via Inversion: SDS with the noise that DDIM would turn into these latents.

    With random noise each step pulls towards another image, and the average of them all is smooth and over-saturated;
    inverted noise keeps to the image that is already there. The arguments are those of `inverted_noise`.

    Source: Score Distillation via Reparametrized DDIM (Lukoianov et al. 2024).
    """
    noise = inverted_noise(sample, denoise, schedule, clean_alpha, steps)
    return sds(replace(sample, noise=noise), predict)


def inverted_noise(sample: Noised, denoise: Denoise, schedule: Tensor, clean_alpha: Tensor, steps: int) -> Tensor:
    """Noise (n, channels, h, w) that deterministic DDIM from each image's timestep would turn into its latents.

    Args:
        sample: latents and timesteps; its noise is not used.
        denoise: the noise to follow; the paper uses a negative guidance scale here.
        schedule: (timesteps,) share of the signal's variance at each timestep.
        clean_alpha: the same of clean latents, where DDIM ends.
        steps: of equal length in timesteps, from clean latents to each image's own timestep.

    Source: DDIM (Song et al. 2021), section 4.3, run backwards; the prediction at a step's start stands for that at its
    end.
    """
    state, alpha, timesteps = sample.latents, clean_alpha, torch.zeros_like(sample.timesteps)
    for step in range(1, steps + 1):
        noise = denoise(state, timesteps)
        clean = (state - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        timesteps = sample.timesteps * step // steps
        alpha = schedule[timesteps].view(-1, 1, 1, 1)
        state = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    return (state - alpha.sqrt() * sample.latents) / (1 - alpha).sqrt()


def vsd(sample: Noised, predict: Predict, predict_render: Denoise) -> Tensor:
    """Variational Score Distillation: guided prediction - the noise that a model of the renders themselves predicts.

    Args:
        predict_render: such a model, see `diffusion.guidance.render_model`.

    Source: ProlificDreamer (Wang et al. 2023), section 3.
    """
    noisy = sample.noisy
    return predict(noisy, sample.timesteps).guided - predict_render(noisy, sample.timesteps)


class Experts(ABC):
    """Whom a loss may ask about the noisy latents of one batch's views.

    Attributes:
        schedule: (timesteps,) share of the signal's variance at each timestep.
        clean_alpha: the same of clean latents, where DDIM ends.
        inversion_steps: DDIM steps from latents to their noise.
        variance_reduction: whether SJC takes the added noise out of the score.
    """

    schedule: Tensor
    clean_alpha: Tensor
    inversion_steps: int
    variance_reduction: bool = True

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor) -> Predictions:
        """The frozen model under the views' prompts."""

    @abstractmethod
    def predict_bad(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The frozen model under a prompt that describes bad images."""

    @abstractmethod
    def predict_inversion(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that DDIM inversion follows."""

    @abstractmethod
    def predict_render(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The model of the renders."""

    @property
    def first_noisy_timestep(self) -> int:
        """From which on noise is not weak any more."""
        return int(WEAK_NOISE * len(self.schedule))


Direction = Callable[[Noised, Experts], Tensor]
DIRECTIONS: Mapping[LossName, Direction] = {
    "sds": lambda sample, ask: sds(sample, ask.predict),
    "sjc": lambda sample, ask: sjc(sample, ask.predict, ask.variance_reduction),
    "csd": lambda sample, ask: csd(sample, ask.predict),
    "nfsd": lambda sample, ask: nfsd(sample, ask.predict, ask.predict_bad, ask.first_noisy_timestep),
    "sdi": lambda sample, ask: sdi(
        sample, ask.predict, ask.predict_inversion, ask.schedule, ask.clean_alpha, ask.inversion_steps
    ),
    "vsd": lambda sample, ask: vsd(sample, ask.predict, ask.predict_render),
}
"""What each loss descends against; `config.guidance.LOSSES` says what it needs."""
