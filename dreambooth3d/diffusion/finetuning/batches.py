"""The batches of a fine-tuning, each drawn by a generator of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.diffusion.finetuning.plan import TrainingPlan
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.transfer import send


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """A generator of its own for each step: a resumed run draws what an uninterrupted one would, with no state kept."""
    state = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes, on the device.

    Attributes:
        latents: clean.
        prompt_rows: the row of each image's prompt in `BatchSource.token_ids`.
        timesteps: of each image.
        noise: float32, offset included.
        pixel_weights: of each latent pixel in its image's loss, None where all are 1.
    """

    latents: Float[Tensor, "n channels height width"]
    prompt_rows: Int[Tensor, " n"]
    timesteps: Int[Tensor, " n"]
    noise: Float[Tensor, "n channels height width"]
    pixel_weights: Float[Tensor, "n 1 height width"] | None = None


class BatchSource:
    """Draws batches by their number.

    Attributes:
        token_ids: (prompts, tokens) of the distinct prompts, on the device.

    Args:
        components: tell prompts' tokens, timesteps and device.
        plan: groups of images, seed and noise offset.
        rank: of this process among those that train together; each draws batches of its own.
    """

    def __init__(self, components: Components, plan: TrainingPlan, rank: int = 0) -> None:
        self._groups, self._seed, self._rank = plan.groups, plan.seed, rank
        self._weighted = any(group.pixel_weights is not None for group in plan.groups)
        self._noise_offset, self._device = plan.config.noise_offset, components.device
        self._timesteps: int = components.scheduler.config.num_train_timesteps
        distinct = list(dict.fromkeys(prompt for group in plan.groups for prompt in group.prompts))
        rows = {prompt: row for row, prompt in enumerate(distinct)}
        self._prompt_rows = [torch.tensor([rows[prompt] for prompt in group.prompts]) for group in plan.groups]
        self.token_ids: Int[Tensor, "prompts tokens"] = components.tokenize(distinct)

    def draw(self, number: int) -> Batch:
        """Batch number `number`: images of each group, then timesteps, then noise."""
        generator = step_generator(self._seed, number, self._rank)
        latents, rows, weights = [], [], []
        for group, prompt_rows in zip(self._groups, self._prompt_rows, strict=True):
            chosen = torch.randint(len(group.latents), (group.count,), generator=generator)
            places = chosen.to(group.latents.device, non_blocking=True)
            latents.append(group.latents[places])
            rows.append(prompt_rows[chosen])
            if self._weighted:
                own = group.pixel_weights
                weights.append(torch.ones_like(latents[-1][:, :1]) if own is None else own[places])
        batch = torch.cat(latents)
        timesteps = torch.randint(0, self._timesteps, (len(batch),), generator=generator)
        noise = torch.randn(batch.shape, generator=generator)
        if self._noise_offset:
            shift = torch.randn(*batch.shape[:2], 1, 1, generator=generator)
            noise = noise + self._noise_offset * shift
        placed = [send(each, self._device) for each in (torch.cat(rows), timesteps, noise)]
        return Batch(batch, *placed, pixel_weights=torch.cat(weights) if self._weighted else None)
