"""Score distillation: a frozen text-to-image model's opinion of renders, as a loss with a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.cameras import VIEW_WORDS, Cameras
from dreambooth3d.config.guidance import GuidanceConfig, ViewPromptsConfig
from dreambooth3d.diffusion.guidance.distillation_losses import DIRECTIONS, Experts, Noised, Predictions
from dreambooth3d.diffusion.guidance.render_model import RenderModel
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.model.scores import classifier_free, perp_neg, rescaled
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.prompts import perp_neg_views, view_prompt
from dreambooth3d.transfer import send

WEIGHTS: Mapping[str, Callable[[Tensor], Tensor | float]] = {
    "sds": lambda alpha: 1 - alpha,
    "uniform": lambda alpha: 1.0,
    "denoised": lambda alpha: ((1 - alpha) / alpha).sqrt(),
    "fantasia3d": lambda alpha: alpha.sqrt() * (1 - alpha),
}
"""w(t) by `guidance.weighting`, of the share of the signal's variance."""


class ScoreDistillation(Guidance):
    """Score distillation with a latent diffusion model, by the loss that the config names.

    The gradient with respect to the latents z of n images is w(t) * direction / n, at a random timestep t per image.
    With SDS the direction is guided noise prediction - noise; see `distillation_losses` for the others. The loss' value
    is half the gradient's squared norm (times n), for curves only. With VSD each call also trains a `RenderModel`.

    Args:
        components: frozen model.
        instance_prompt: the subject's prompt without a view.
        config: loss, scales, timestep range, Perp-Neg, weighting, clipping.
        seed: of timesteps and noise, which are drawn on the CPU and so are the same on every device.
    """

    def __init__(self, components: Components, instance_prompt: str, config: GuidanceConfig, seed: int) -> None:
        self.components = components
        self.config = config
        self._generator = torch.Generator().manual_seed(seed)
        # One row per view word, so that a batch's embeddings are one gather.
        self._views = components.encode_prompts(_prompts_of_views(instance_prompt, config.view_prompts))
        self._unconditional = components.encode_prompts([config.negative_prompt])
        if config.needs.bad_prompt:
            components.encode_prompts([config.nfsd_negative_prompt])
        self._renders: RenderModel | None = None
        if config.needs.render_model:
            self._renders = RenderModel(components, config.lora_rank, config.lora_learning_rate, self._generator)

    @property
    def image_size(self) -> int:
        """Pixels per side to which images are resized before they are encoded."""
        return self.components.image_size

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """See `Guidance`."""
        return self.components.latent_shape

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """Judge renders; the position in the stage anneals guidance scale and timesteps. See `Guidance`."""
        images = images.to(self.components.device)
        shown = images if self.config.image_weight > 0 else None
        return self._judge(self.components.encode_images(images), cameras, progress, shown)

    def of_latents(self, latents: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """See `Guidance`; there are no images for `image_weight`, which counts for nothing."""
        return self._judge(latents.to(self.components.device), cameras, progress)

    def _judge(self, latents: Tensor, cameras: Cameras, progress: float, shown: Tensor | None = None) -> GuidanceLoss:
        timesteps, noise = self._draw(latents, progress)
        gradient, pull = self._gradients(latents.detach(), timesteps, noise, cameras, progress, shown)
        count = len(latents)
        # The product alone has the exact gradient but a meaningless value; the difference replaces only the value.
        surrogate = (gradient * latents).sum() / count
        value = 0.5 * gradient.square().sum() / count
        if shown is not None and pull is not None:
            surrogate = surrogate + self.config.image_weight * (pull * shown).sum() / count
            value = value + self.config.image_weight * 0.5 * pull.square().sum() / count
        metrics = {
            "gradient_norm": gradient.flatten(1).norm(dim=1).mean(),
            "timestep": float(timesteps.float().mean()) / self._timestep_count,
            "guidance_scale": self._annealed(self.config.guidance_scale, progress),
        }
        if self._renders is not None:
            metrics["lora_loss"] = self._train(self._renders, latents.detach(), cameras)
        return GuidanceLoss(surrogate - surrogate.detach() + value, metrics)

    @property
    def _timestep_count(self) -> int:
        return self.components.scheduler.config.num_train_timesteps

    @staticmethod
    def _annealed(bounds: tuple[float, float], progress: float) -> float:
        start, end = bounds
        return start + (end - start) * min(max(progress, 0.0), 1.0)

    def _draw(self, latents: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Timesteps (n,) on the CPU from the annealed range, and unit noise like `latents`."""
        last = self._timestep_count - 1
        if self.config.timestep_annealing == "sqrt":
            progress = max(progress, 0.0) ** 0.5
        low = min(int(self._annealed(self.config.min_timestep, progress) * self._timestep_count), last)
        high = min(max(int(self._annealed(self.config.max_timestep, progress) * self._timestep_count), low), last)
        first, total = self.part or (0, len(latents))
        mine = slice(first, first + len(latents))
        timesteps = torch.randint(low, high + 1, (total,), generator=self._generator)[mine]
        noise = torch.randn(total, *latents.shape[1:], generator=self._generator)[mine]
        return timesteps, send(noise.to(latents.dtype), latents.device)

    @torch.no_grad()
    def _gradients(
        self,
        latents: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        cameras: Cameras,
        progress: float,
        images: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """w(t) * direction of each image, clipped, (n, channels, h, w); and that of `images` (n, 3, height, width).

        direction = sqrt(a / (1 - a)) (latents - denoised); for images, decoded latents stand in place of the denoised.

        Source: HiFA (Zhu et al. 2023), for the loss in image space.
        """
        timesteps = timesteps.to(latents.device, non_blocking=True)
        alpha = self.components.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        scale = self._annealed(self.config.guidance_scale, progress)
        sample = Noised(latents, timesteps, alpha, noise)
        direction = DIRECTIONS[self.config.loss](sample, _Models(self, cameras, scale))
        gradient = self._weighted(direction, alpha, progress)
        if images is None:
            return gradient, None
        ratio = (alpha / (1 - alpha)).sqrt()
        self.components.recall_decoder()
        denoised = self.components.decode_latents(latents - direction / ratio)
        return gradient, self._weighted(ratio * (images.detach() - denoised), alpha, progress)

    def _weighted(self, direction: Tensor, alpha: Tensor, progress: float) -> Tensor:
        """w(t) * direction, clipped, of the share of the signal's variance (n, 1, 1, 1)."""
        gradient = WEIGHTS[self.config.weighting](alpha) * direction
        if self.config.gradient_clip is None:
            return gradient
        bound = self._annealed(self.config.gradient_clip, progress)
        return gradient.clamp(-bound, bound)

    def _predictions(
        self, noisy: Tensor, timesteps: Tensor, cameras: Cameras, scale: float, rescale: float
    ) -> Predictions:
        """The noise that the model sees in `noisy` (n, channels, h, w) under the views' prompts."""
        if self.config.perp_neg:
            return self._perp_neg_predictions(noisy, timesteps, cameras, scale, rescale)
        count = len(noisy)
        embeddings = torch.cat([self._view_embeddings(cameras), self._unconditional.expand(count, -1, -1)])
        conditional, unconditional = self.components.predict_noise(
            noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), embeddings
        ).chunk(2)
        guided = rescaled(classifier_free(unconditional, conditional, scale), conditional, rescale)
        return Predictions(unconditional, conditional, guided)

    def _perp_neg_predictions(
        self, noisy: Tensor, timesteps: Tensor, cameras: Cameras, scale: float, rescale: float
    ) -> Predictions:
        """`_predictions` with Perp-Neg: all four prompts of each image in one call of the UNet."""
        count, views = len(noisy), perp_neg_views(cameras)
        shares = views.positive.to(self._views, non_blocking=True)
        positive = torch.einsum("nw,wtd->ntd", shares, self._views)
        negative = self._views[views.negative.to(noisy.device, non_blocking=True)]  # (n, 2, tokens, dim)
        embeddings = torch.cat([positive, self._unconditional.expand(count, -1, -1), negative[:, 0], negative[:, 1]])
        conditional, unconditional, first, second = self.components.predict_noise(
            noisy.repeat(4, 1, 1, 1), timesteps.repeat(4), embeddings
        ).chunk(4)
        weights = self.config.perp_neg_weight * views.weight.to(noisy, non_blocking=True)
        guided = perp_neg(unconditional, conditional, torch.stack([first, second], 1), weights, scale)
        return Predictions(unconditional, conditional, rescaled(guided, conditional, rescale))

    def _view_embeddings(self, cameras: Cameras) -> Tensor:
        """(n, tokens, dim) of the view prompt that each camera's word names."""
        words = [VIEW_WORDS.index(word) for word in cameras.view_words()]
        return self._views[torch.tensor(words).to(self._views.device, non_blocking=True)]

    def _train(self, renders: RenderModel, latents: Tensor, cameras: Cameras) -> Tensor:
        """One step of the render model on the batch at timesteps of its own, from all of them; returns its loss."""
        timesteps = torch.randint(self._timestep_count, (len(latents),), generator=self._generator)
        noise = torch.randn(latents.shape, generator=self._generator)
        views = self._view_embeddings(cameras)
        drawn = send(timesteps, latents.device), send(noise.to(latents.dtype), latents.device)
        return renders.learn(latents, *drawn, views)

    def state(self) -> dict[str, Any]:
        """The generator, and what the render model has learned."""
        state: dict[str, Any] = {"generator": self._generator.get_state()}
        if self._renders is not None:
            state["renders"] = self._renders.state()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self._generator.set_state(state["generator"].cpu())
        if self._renders is not None:
            self._renders.restore(state["renders"])


class _Models(Experts):
    """The models that a loss may ask, about views from some cameras at a guidance scale."""

    def __init__(self, guidance: ScoreDistillation, cameras: Cameras, scale: float) -> None:
        self._guidance, self._cameras, self._scale = guidance, cameras, scale
        self.schedule = guidance.components.alphas_cumprod
        self.clean_alpha = guidance.components.scheduler.final_alpha_cumprod
        self.inversion_steps = guidance.config.inversion_steps
        self.variance_reduction = guidance.config.variance_reduction

    def predict(self, noisy: Tensor, timesteps: Tensor) -> Predictions:
        """See `Experts`; guided and rescaled as the config says."""
        rescale = self._guidance.config.rescale
        return self._guidance._predictions(noisy, timesteps, self._cameras, self._scale, rescale)

    def predict_bad(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """See `Experts`."""
        components, prompt = self._guidance.components, self._guidance.config.nfsd_negative_prompt
        bad = components.encode_prompts([prompt]).expand(len(noisy), -1, -1)
        return components.predict_noise(noisy, timesteps, bad)

    def predict_inversion(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """See `Experts`; at a guidance scale of its own."""
        scale = self._guidance.config.inversion_guidance_scale
        return self._guidance._predictions(noisy, timesteps, self._cameras, scale, rescale=0.0).guided

    def predict_render(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """See `Experts`."""
        renders = self._guidance._renders
        if renders is None:
            raise ValueError(f"guidance.loss={self._guidance.config.loss} has no model of the renders to ask.")
        return renders.predict_noise(noisy, timesteps, self._guidance._view_embeddings(self._cameras))


def _prompts_of_views(prompt: str, config: ViewPromptsConfig) -> list[str]:
    """One prompt for each of `VIEW_WORDS`, as the configuration asks for it."""
    plain = {word: view_prompt(prompt, word) if config.words else prompt for word in VIEW_WORDS}
    return [getattr(config, word) or plain[word] for word in VIEW_WORDS]
