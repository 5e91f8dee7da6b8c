"""Precision and speed of a fine-tuning: what is kept in which dtype, and how accelerate and CUDA run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from dreambooth3d.config.base import Acceleration
from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.diffusion.finetuning.networks import TrainedNetworks
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.parallel import Team

if TYPE_CHECKING:
    from accelerate import Accelerator


class Prepared(NamedTuple):
    """UNet, text encoder and optimizer as accelerate wants to run them."""

    unet: nn.Module
    text_encoder: nn.Module
    optimizer: Any


def trained_dtype(config: TrainerConfig, device: torch.device) -> torch.dtype:
    """dtype of the loaded networks: below a LoRA they are frozen, and so need no more precision than autocast has."""
    # accelerate has no float16 on the CPU, and computes there in float32.
    half = {"bf16": torch.bfloat16} | ({"fp16": torch.float16} if device.type == "cuda" else {})
    return half.get(config.mixed_precision, torch.float32) if config.lora_rank else torch.float32


def lay_out(components: Components, config: TrainerConfig, device: torch.device) -> None:
    """Give the UNet the memory layout that it is trained fastest in."""
    # As in `Components.accelerate`. The optimizer in 8 bits wants its parameters row by row.
    if device.type == "cuda" and config.optimizer == "adamw":
        nn.Module.to(components.unet, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # no overload


def make_accelerator(device: torch.device, mixed_precision: str) -> Accelerator:
    """An accelerator for one training; the settings of an earlier one in this process do not stick."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)


def prepare(accelerator: Accelerator, networks: TrainedNetworks, optimizer: torch.optim.Optimizer) -> Prepared:
    """Hand what is trained to accelerate; a text encoder that is not stays as it is."""
    parts = networks.components
    if networks.train_text_encoder:
        return Prepared(*accelerator.prepare(parts.unet, parts.text_encoder, optimizer))
    unet, stepper = accelerator.prepare(parts.unet, optimizer)
    return Prepared(unet, parts.text_encoder, stepper)


def usable_acceleration(config: TrainerConfig, team: Team) -> Acceleration:
    """How forward and backward pass run: a graph cannot add gradients up, nor keep the state of random numbers."""
    alone = team.size == 1 and config.gradient_accumulation_steps == 1
    return config.acceleration if alone and not config.gradient_checkpointing else "none"
