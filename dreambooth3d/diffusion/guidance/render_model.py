"""A diffusion model of the renders themselves, trained while they are distilled, for variational score distillation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.model.lora import ADAPTED
from dreambooth3d.runtime import optimizer_state, restore_optimizer

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class RenderModel:
    """A LoRA of a frozen UNet that learns to see the noise in noisy renders.

    The LoRA sits on a copy of the UNet's modules that shares the frozen weights, so that `components` stay as they
    were, and no adapter has to be switched off for them. Its weights and the optimiser are float32; where the UNet is
    float16, the loss is scaled, lest gradients vanish on their way through it. At first it predicts what the UNet does.

    ProlificDreamer also conditions the LoRA on the camera's pose, through an embedding in place of the UNet's class
    embedding. Here it knows the view by its prompt only, so that any UNet will do.

    Args:
        components: frozen model.
        rank: of the LoRA.
        learning_rate: of AdamW.
        generator: of the LoRA's first weights, on the CPU.

    Source: ProlificDreamer (Wang et al. 2023), algorithm 1; LoRA (Hu et al. 2021).
    """

    def __init__(self, components: Components, rank: int, learning_rate: float, generator: torch.Generator) -> None:
        unet = _sharing_copy(components.unet)
        _add_lora(unet, rank, components.device, generator)
        parts = (components.tokenizer, components.text_encoder, components.vae, unet, components.scheduler)
        self._model = Components(*parts, components.base, components.device, components.dtype)
        self._weights = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}
        self._optimizer = torch.optim.AdamW(self._weights.values(), lr=learning_rate)
        self._scaler = torch.amp.GradScaler(components.device.type, enabled=components.dtype == torch.float16)

    @torch.no_grad()
    def predict_noise(self, noisy: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        """See `Components.predict_noise`."""
        return self._model.predict_noise(noisy, timesteps, embeddings)

    def learn(self, latents: Tensor, timesteps: Tensor, noise: Tensor, embeddings: Tensor) -> Tensor:
        """Take one optimiser step on renders.

        Args:
            latents: (n, channels, h, w) of renders, clean and without gradient.
            timesteps: (n,) on the latents' device.
            noise: like `latents`.
            embeddings: (n, tokens, dim) of the view prompts.

        Returns:
            The mean squared error before the step, detached.
        """
        schedule = self._model.scheduler
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        noisy = schedule.add_noise(latents, noise, timesteps)
        with torch.enable_grad():
            loss = nn.functional.mse_loss(self._model.predict(noisy, timesteps, embeddings), target)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Weights of the LoRA, optimiser and loss scale, as tensors and JSON values."""
        return {
            "weights": {name: weight.detach() for name, weight in self._weights.items()},
            "optimizer": optimizer_state(self._optimizer),
            "scaler": self._scaler.state_dict(),
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        for name, weight in self._weights.items():
            weight.copy_(state["weights"][name])
        restore_optimizer(self._optimizer, state["optimizer"])
        if state["scaler"]:
            self._scaler.load_state_dict(dict(state["scaler"]))


def _sharing_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same modules over again, on the very same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
    return copy.deepcopy(unet, shared)


def _add_lora(unet: UNet2DConditionModel, rank: int, device: torch.device, generator: torch.Generator) -> None:
    """Put a float32 LoRA on the attention; it is all of `unet` that takes gradients, and changes nothing yet."""
    from peft import LoraConfig

    # peft draws first weights from the global generators, which others use as well.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ADAPTED["unet"])))
    for name, weight in unet.named_parameters():
        if weight.requires_grad and "lora_A" in name:
            weight.data = _first_weights(weight.shape, generator).to(device)
        elif weight.requires_grad:
            weight.data = torch.zeros_like(weight, dtype=torch.float32)


def _first_weights(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform as in a fresh linear layer, float32 on the CPU."""
    return nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=generator)
