"""The networks that a fine-tuning changes: which they are, which of their weights take gradients, what is stored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.diffusion.model import lora
from dreambooth3d.diffusion.model.components import Components, half


class TrainedNetworks:
    """The UNet and perhaps the text encoder of a model: all their weights, or a LoRA on them; the rest is frozen.

    Attributes:
        components: the model.
        by_kind: the trained networks as `unet` and `text_encoder`.
        parameters: all that take gradients.

    Args:
        components: loaded with `trainable=True`; changed in place.
        config: says which networks, and whether by a LoRA.
        seed: of a LoRA's first weights.
    """

    def __init__(self, components: Components, config: TrainerConfig, seed: int) -> None:
        self.components = components
        self._has_lora = config.lora_rank > 0
        components.text_encoder.requires_grad_(config.train_text_encoder)
        self.by_kind: dict[str, nn.Module] = {"unet": components.unet}
        if config.train_text_encoder:
            self.by_kind["text_encoder"] = components.text_encoder
        if self._has_lora:
            generator = torch.Generator().manual_seed(seed)
            for kind, network in self.by_kind.items():
                lora.add_adapters(network, kind, config.lora_rank, generator)
        if config.gradient_checkpointing:
            _checkpoint_activations(self.by_kind)
        self.parameters: list[nn.Parameter] = [
            parameter
            for network in self.by_kind.values()
            for parameter in network.parameters()
            if parameter.requires_grad
        ]

    @property
    def train_text_encoder(self) -> bool:
        """Whether the text encoder is among them."""
        return "text_encoder" in self.by_kind

    @property
    def are_finite(self) -> bool:
        """Whether all that takes gradients is finite; waits for the device."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all())

    def train(self) -> None:
        """Put the networks into the mode in which they are trained."""
        self.components.unet.train()
        self.components.text_encoder.train(self.train_text_encoder)

    def eval(self) -> None:
        """Put all networks into the mode in which they are used."""
        self.components.unet.eval()
        self.components.text_encoder.eval()

    def inference_weights(self, kind: str) -> dict[str, Tensor]:
        """A network's weights for a checkpoint: all of them in half precision, or a LoRA as far as it is one."""
        network = getattr(self.components, kind)
        if not self._has_lora:
            return half(network)
        start = self.components.checkpoint
        adapters = lora.adapter_weights(network, kind) if kind in self.by_kind else {}
        return lora.combined(getattr(start, kind).load() if start is not None else {}, adapters)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What training changes, by network: its state, or its LoRA."""
        return {kind: self._trained_part(network.state_dict()) for kind, network in self.by_kind.items()}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Inverse of `state`."""
        for kind, network in self.by_kind.items():
            network.load_state_dict(state[kind], strict=not self._has_lora)

    def _trained_part(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if "lora_" in name} if self._has_lora else state


def _checkpoint_activations(networks: Mapping[str, nn.Module]) -> None:
    """Have activations computed again in the backward pass instead of kept."""
    networks["unet"].enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]  # a method of diffusers' models
    if "text_encoder" in networks:
        encoder = networks["text_encoder"]
        # Versions of transformers differ in the name.
        enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # pyright: ignore[reportCallIssue]  # a method of transformers' models
