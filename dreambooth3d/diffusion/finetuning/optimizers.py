"""The optimiser of a fine-tuning: AdamW, what it decays, and how its learning rate warms up."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.diffusion.finetuning.networks import TrainedNetworks
from dreambooth3d.errors import ConfigError


def require_optimizer(name: str, where: str) -> None:
    """Check that an optimiser's package is installed.

    Args:
        name: as in `TrainerConfig.optimizer`.
        where: the section of the config that asks for it.

    Raises:
        ConfigError: it is not.
    """
    if name == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{where}.optimizer: adamw_8bit needs the package bitsandbytes, which is not installed. Run `pip install "
            f"bitsandbytes`, or set {where}.optimizer to adamw."
        )


def parameter_groups(networks: Sequence[tuple[nn.Module, float]], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: no decay on embeddings, norms and biases, whose size carries meaning.

    Args:
        networks: each with its peak learning rate; only parameters that take gradients count.
        weight_decay: of the others.

    Returns:
        Groups that are not empty; each also keeps its `peak_lr`, which a warm-up leads to.
    """
    groups = []
    for network, rate in networks:
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                (free if parameter.ndim < 2 or "embedding" in name else decayed).append(parameter)
        for parameters, decay in ((decayed, weight_decay), (free, 0.0)):
            groups.append({"params": parameters, "weight_decay": decay, "lr": rate, "peak_lr": rate})
    return [group for group in groups if group["params"]]


def make_optimizer(networks: TrainedNetworks, config: TrainerConfig) -> torch.optim.Optimizer:
    """AdamW over the trained weights, with its state in float32 or, by bitsandbytes, in 8 bits."""
    rates = {"unet": config.learning_rate, "text_encoder": config.text_encoder_learning_rate or config.learning_rate}
    trained = [(network, rates[kind]) for kind, network in networks.by_kind.items()]
    groups = parameter_groups(trained, config.weight_decay)
    options = {"lr": config.learning_rate, "betas": config.adam_betas, "eps": config.adam_epsilon}
    if config.optimizer == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]  # an extra

        return AdamW8bit(groups, **options)
    # Fused also on the CPU, where it takes half the time of the default.
    return torch.optim.AdamW(groups, **options, fused=True)


def warm_up(optimizer: torch.optim.Optimizer, step: int, warmup_steps: int) -> None:
    """Set the learning rates of a step, counted from 0: they rise linearly to the peak of the last warm-up step."""
    warmed = min(1.0, (step + 1) / max(1, warmup_steps))
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * warmed
