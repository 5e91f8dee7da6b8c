"""Score distillation: a frozen text-to-image model's opinion of renders, as a loss with a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dreambooth3d.artifacts import DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.config import GuidanceConfig
from dreambooth3d.diffusion.components import Components, load_components
from dreambooth3d.diffusion.prompts import perp_neg_views, view_prompt
from dreambooth3d.diffusion.scores import classifier_free, perp_neg, rescaled
from dreambooth3d.nerf.cameras import VIEW_WORDS, Cameras


@dataclass(frozen=True)
class GuidanceLoss:
    """What guidance says about a batch of renders.

    Attributes:
        loss: scalar with gradient.
        metrics: detached scalars by name, left on the device so that nothing waits for them until they are logged.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor | float]


class ScoreDistillation:
    """Score distillation sampling (SDS) with a latent diffusion model.

    The gradient with respect to the latents z of n images is w(t) * (guided noise prediction - noise) / n, at a
    random timestep t per image; the loss' value is half its squared norm (times n), for curves only.

    Args:
        components: frozen model.
        instance_prompt: the subject's prompt without a view.
        config: scales, timestep range, Perp-Neg, weighting, clipping.
        seed: of timesteps and noise, which are drawn on the CPU and so are the same on every device.

    Source: DreamFusion (Poole et al. 2022), eq. 3, in latent space as in threestudio.
    """

    def __init__(self, components: Components, instance_prompt: str, config: GuidanceConfig, seed: int) -> None:
        self.components = components
        self.config = config
        self._generator = torch.Generator().manual_seed(seed)
        # One row per view word, so that a batch's embeddings are one gather.
        self._views = components.encode_prompts([view_prompt(instance_prompt, word) for word in VIEW_WORDS])
        self._unconditional = components.encode_prompts([config.negative_prompt])

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: DreamBoothCheckpoint,
        photos: SubjectPhotos,
        config: GuidanceConfig,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype | None = None,
    ) -> ScoreDistillation:
        """Guidance by a fine-tuned checkpoint towards the subject of `photos`."""
        components = load_components(checkpoint.base_model, device, checkpoint, dtype=dtype)
        return cls(components, photos.instance_prompt, config, seed)

    @property
    def image_size(self) -> int:
        """Pixels per side to which images are resized before they are encoded."""
        return self.components.image_size

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """Judge renders.

        Args:
            images: (n, 3, height, width) in [0, 1], with gradient.
            cameras: the n cameras that they were seen from.
            progress: share of the stage that is done, in [0, 1]; anneals guidance scale and timesteps.
        """
        latents = self.components.encode_images(images.to(self.components.device))
        timesteps, noise = self._draw(latents, progress)
        gradient = self._gradient(latents.detach(), timesteps, noise, cameras, progress)
        count = len(latents)
        # The product alone has the exact gradient but a meaningless value; the difference replaces only the value.
        surrogate = (gradient * latents).sum() / count
        value = 0.5 * gradient.square().sum() / count
        metrics = {
            "gradient_norm": gradient.flatten(1).norm(dim=1).mean(),
            "timestep": float(timesteps.float().mean()) / self._timestep_count,
            "guidance_scale": self._annealed(self.config.guidance_scale, progress),
        }
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
        low = min(int(self._annealed(self.config.min_timestep, progress) * self._timestep_count), last)
        high = min(max(int(self._annealed(self.config.max_timestep, progress) * self._timestep_count), low), last)
        timesteps = torch.randint(low, high + 1, (len(latents),), generator=self._generator)
        noise = torch.randn(latents.shape, generator=self._generator)
        return timesteps, noise.to(latents.device, latents.dtype)

    @torch.no_grad()
    def _gradient(self, latents: Tensor, timesteps: Tensor, noise: Tensor, cameras: Cameras, progress: float) -> Tensor:
        """w(t) * (guided prediction - noise) for each image, (n, channels, h, w)."""
        timesteps = timesteps.to(latents.device)
        alpha = self.components.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        scale = self._annealed(self.config.guidance_scale, progress)
        guided = self._guided_noise(noisy, timesteps, cameras, scale)
        weight = 1 - alpha if self.config.weighting == "sds" else 1.0
        gradient = weight * (guided - noise)
        if self.config.gradient_clip is not None:
            gradient = gradient.clamp(-self.config.gradient_clip, self.config.gradient_clip)
        return gradient

    def _guided_noise(self, noisy: Tensor, timesteps: Tensor, cameras: Cameras, scale: float) -> Tensor:
        """The noise that the model sees in `noisy` (n, channels, h, w) under the views' prompts, guided."""
        if self.config.perp_neg:
            return self._perp_neg_noise(noisy, timesteps, cameras, scale)
        count = len(noisy)
        words = torch.tensor([VIEW_WORDS.index(word) for word in cameras.view_words()], device=noisy.device)
        embeddings = torch.cat([self._views[words], self._unconditional.expand(count, -1, -1)])
        conditional, unconditional = self.components.predict_noise(
            noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), embeddings
        ).chunk(2)
        return rescaled(classifier_free(unconditional, conditional, scale), conditional, self.config.rescale)

    def _perp_neg_noise(self, noisy: Tensor, timesteps: Tensor, cameras: Cameras, scale: float) -> Tensor:
        """`_guided_noise` with Perp-Neg: all four prompts of each image in one call of the UNet."""
        count, views = len(noisy), perp_neg_views(cameras)
        positive = torch.einsum("nw,wtd->ntd", views.positive.to(self._views), self._views)
        negative = self._views[views.negative.to(noisy.device)]  # (n, 2, tokens, dim)
        embeddings = torch.cat([positive, self._unconditional.expand(count, -1, -1), negative[:, 0], negative[:, 1]])
        conditional, unconditional, first, second = self.components.predict_noise(
            noisy.repeat(4, 1, 1, 1), timesteps.repeat(4), embeddings
        ).chunk(4)
        weights = self.config.perp_neg_weight * views.weight.to(noisy)
        guided = perp_neg(unconditional, conditional, torch.stack([first, second], 1), weights, scale)
        return rescaled(guided, conditional, self.config.rescale)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs to draw the same timesteps and noise."""
        return {"generator": self._generator.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`."""
        self._generator.set_state(state["generator"].cpu())
