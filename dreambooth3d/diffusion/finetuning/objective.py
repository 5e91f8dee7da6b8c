"""The loss of a fine-tuning: each group's squared error, weighed by group and timestep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.diffusion.finetuning import denoising_loss
from dreambooth3d.diffusion.finetuning.batches import Batch
from dreambooth3d.diffusion.finetuning.plan import ImageGroup, TrainingPlan
from dreambooth3d.diffusion.finetuning.precision import Prepared
from dreambooth3d.diffusion.model.components import Components


def group_weights(groups: Sequence[ImageGroup], device: torch.device) -> Float[Tensor, " n"]:
    """The weight of each image of a batch, which make a group's weight together."""
    return torch.cat([torch.full((group.count,), group.weight / group.count) for group in groups]).to(device)


def timestep_weights(components: Components, config: TrainerConfig) -> Float[Tensor, " timesteps"] | None:
    """Weights of the loss on the device, None where all are 1."""
    if config.snr_gamma is None:
        return None
    prediction_type = components.scheduler.config.prediction_type
    return denoising_loss.min_snr_weights(components.alphas_cumprod, config.snr_gamma, prediction_type)


class DenoisingObjective:
    """Computes a batch's loss in two parts: what goes in, and the passes through the networks.

    The second part takes tensors alone and waits for nothing, so that it can be captured as a graph.

    Args:
        components: tell the noise schedule.
        prepared: the networks as they run.
        plan: groups and their weights, and the weighting of timesteps.
        token_ids: (prompts, tokens) of the distinct prompts.
    """

    def __init__(
        self, components: Components, prepared: Prepared, plan: TrainingPlan, token_ids: Int[Tensor, "prompts tokens"]
    ) -> None:
        self._unet: nn.Module = prepared.unet
        self._text_encoder: nn.Module = prepared.text_encoder
        self._token_ids, self._groups = token_ids, plan.groups
        self._alphas_cumprod = components.alphas_cumprod
        self._prediction_type: str = components.scheduler.config.prediction_type
        self._image_weights = group_weights(plan.groups, components.device)
        self._timestep_weights = timestep_weights(components, plan.config)
        self._fixed_embeddings = None if plan.config.train_text_encoder else self._embed().detach()

    def _embed(self) -> Tensor:
        """(prompts, tokens, dim) embeddings of the distinct prompts; a batch repeats them, so each is encoded once."""
        return self._text_encoder(self._token_ids)[0]

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What `losses` takes of a batch: noisy latents, timesteps, prompt rows, target, weights, pixels' weights."""
        alphas = self._alphas_cumprod[batch.timesteps]
        noisy = denoising_loss.add_noise(batch.latents, batch.noise, alphas)
        target = denoising_loss.training_target(batch.latents, batch.noise, alphas, self._prediction_type)
        weights = self._image_weights
        if self._timestep_weights is not None:
            weights = weights * self._timestep_weights[batch.timesteps]
        pixels = () if batch.pixel_weights is None else (batch.pixel_weights,)
        return noisy, batch.timesteps, batch.prompt_rows, target, weights, *pixels

    def losses(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        prompt_rows: Tensor,
        target: Tensor,
        weights: Tensor,
        pixel_weights: Tensor | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " n"]]:
        """The batch's loss, and the squared error of each image."""
        embeddings = self._embed() if self._fixed_embeddings is None else self._fixed_embeddings
        output = self._unet(noisy, timesteps, encoder_hidden_states=embeddings[prompt_rows]).sample
        errors = denoising_loss.squared_errors(output, target, pixel_weights)
        return (errors * weights).sum(), errors

    def by_group(self, errors: Float[Tensor, " n"]) -> dict[str, Float[Tensor, ""]]:
        """The mean squared error of each group, as `<name>_loss`."""
        parts = errors.split([group.count for group in self._groups])
        return {f"{group.name}_loss": part.mean() for group, part in zip(self._groups, parts, strict=True)}
