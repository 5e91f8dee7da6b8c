"""What one fine-tuning is made of, before anything is loaded: images in groups, the configuration, the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.config.finetuning import TrainerConfig


@dataclass(frozen=True)
class ImageGroup:
    """Training images that share a place in the batch and in the loss.

    Attributes:
        name: such as `instance`; its loss is logged as `<name>_loss`.
        latents: scaled, on the device.
        prompts: one for each image.
        count: images per step.
        weight: of the group's mean squared error in the loss.
        pixel_weights: of each latent pixel in its image's mean squared error, on the device; None for 1.
    """

    name: str
    latents: Float[Tensor, "n channels height width"]
    prompts: Sequence[str]
    count: int
    weight: float
    pixel_weights: Float[Tensor, "n 1 height width"] | None = None

    def to(self, device: torch.device | str) -> ImageGroup:
        """The same group with its latents on a device."""
        weights = None if self.pixel_weights is None else self.pixel_weights.to(device)
        return replace(self, latents=self.latents.to(device), pixel_weights=weights)


@dataclass(frozen=True)
class CheckpointSchedule:
    """Which checkpoints a training keeps, and how they are numbered.

    Attributes:
        first_step: step number to count from, for a continued checkpoint.
        every: steps from one to the next, the start included; None keeps only the last one.
        kept: only so many of the newest, and the one of the start; None keeps all.
    """

    first_step: int = 0
    every: int | None = None
    kept: int | None = None

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint belongs after so many steps; one that an interruption leaves elsewhere is temporary."""
        return self.every is not None and done % self.every == 0


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained on, and how.

    Attributes:
        groups: what a batch is made of.
        config: the options, and how long.
        seed: of batches, timesteps and noise, and of a LoRA's first weights.
        checkpoints: which are kept.
    """

    groups: tuple[ImageGroup, ...]
    config: TrainerConfig
    seed: int
    checkpoints: CheckpointSchedule = CheckpointSchedule()

    def to(self, device: torch.device | str) -> TrainingPlan:
        """The same plan with its latents on a device."""
        return replace(self, groups=tuple(group.to(device) for group in self.groups))


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves behind.

    Attributes:
        checkpoints: by steps done.
        grids: sample grids by steps done.
        steps_done: steps that were run, earlier runs of the same training included.
        interrupted: whether the user's stop signal ended it.
    """

    checkpoints: dict[int, DreamBoothCheckpoint] = field(default_factory=dict)
    grids: dict[int, UInt8[Tensor, "height width 3"]] = field(default_factory=dict)
    steps_done: int = 0
    interrupted: bool = False
