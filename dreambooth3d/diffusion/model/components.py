"""A text-to-image model's parts, loaded once, and the few operations that everything else is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from dreambooth3d.artifacts import BaseModelRef, DreamBoothCheckpoint
from dreambooth3d.config.base import Acceleration
from dreambooth3d.diffusion.model import base_model, lora
from dreambooth3d.diffusion.model.graphs import DifferentiableGraph, GraphedFunction
from dreambooth3d.errors import BaseModelError, gist
from dreambooth3d.progress import no_bars_of_transformers

if TYPE_CHECKING:  # diffusers and transformers load for seconds, and most steps and commands need neither
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

VAE_PIXELS = 512**2
PREDICTIONS = ("epsilon", "v_prediction")
"""What the UNet may say; the guidance knows no others."""
MAX_CELLS, TRIED_CELLS = 512, 8
"""Of the latents per side: the most that a model may be made for, and those of the pass that tries it."""


def unet_call(unet: UNet2DConditionModel, dtype: torch.dtype) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A function of noisy latents, timesteps and embeddings: the UNet's output, float32."""

    def call(noisy: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        return unet(noisy.to(dtype), timesteps, encoder_hidden_states=embeddings.to(dtype)).sample.float()

    return call


def encoder_call(vae: AutoencoderKL, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function of images in [0, 1] of the model's size: the posterior's mean, scaled, float32."""

    def call(images: Tensor) -> Tensor:
        posterior = vae.encode((images * 2 - 1).to(dtype)).latent_dist
        return posterior.mean.float() * vae.config.scaling_factor

    return call


@dataclass
class Components:
    """Tokenizer, text encoder, VAE, UNet and scheduler of one latent diffusion model.

    `scheduler` holds the noise schedule; it is never stepped, so that components can be shared. `checkpoint` is the one
    whose weights UNet and text encoder were loaded with, None for the base model's own.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    base: BaseModelRef
    device: torch.device
    dtype: torch.dtype
    checkpoint: DreamBoothCheckpoint | None = None
    _embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _alphas_cumprod: Tensor | None = field(default=None, repr=False)
    _graphed_unet: GraphedFunction | None = field(default=None, repr=False)
    _graphed_encoder: DifferentiableGraph | None = field(default=None, repr=False)

    def accelerate(self, acceleration: Acceleration) -> None:
        """Call UNet and VAE encoder faster where nothing in them is trained; it has an effect on CUDA only.

        Args:
            acceleration: `graphs` launches each by one CUDA graph, `compile` fuses its kernels before, `none` neither.
        """
        use, compiles = acceleration != "none", acceleration == "compile"
        if use and self.device.type == "cuda":
            from diffusers.models.attention_processor import AttnProcessor

            # The layout that the GPU's convolutions compute in: in the other one they convert what they read and write.
            # The encoder's gain nothing by it, since its backward pass converts all the same.
            nn.Module.to(self.unet, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # no overload
            # Its one head is wider than the fast kernels of attention take, and the backward pass of the one that is
            # left is slower by far than matrix products with all 64x64 cells' weights in memory.
            self.vae.set_attn_processor(AttnProcessor())
        # Of functions that do not know these components: what a graph holds goes when the components go.
        call_unet, call_encoder = unet_call(self.unet, self.dtype), encoder_call(self.vae, self.dtype)
        self._graphed_unet = GraphedFunction(call_unet, "the UNet", compiles) if use else None
        self._graphed_encoder = DifferentiableGraph(call_encoder, "the VAE's encoder", compiles) if use else None

    def set_aside(self) -> None:
        """Move to the CPU what judges renders by prompts that are known by now does not need: text encoder, decoder."""
        for network in (self.text_encoder, self.vae.decoder, self.vae.post_quant_conv):
            if network is not None:
                nn.Module.to(network, "cpu")

    def recall_decoder(self) -> None:
        """Undo `set_aside` for the decoder."""
        for network in (self.vae.decoder, self.vae.post_quant_conv):
            if network is not None:
                nn.Module.to(network, self.device)

    @property
    def image_size(self) -> int:
        """Pixels per side of the images that the model was made for."""
        return self.unet.config.sample_size * self.latent_cell

    @property
    def latent_cell(self) -> int:
        """Pixels per side of one latent cell."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""
        size = self.unet.config.sample_size
        return self.unet.config.in_channels, size, size

    @property
    def alphas_cumprod(self) -> Float[Tensor, " timesteps"]:
        """Share of the signal's variance that is left at each timestep, float32 on the device."""
        if self._alphas_cumprod is None:
            alphas: Tensor = self.scheduler.alphas_cumprod.to(self.device, torch.float32)
            self._alphas_cumprod = alphas
        return self._alphas_cumprod

    def require_known_words(self, noun: str, identifier: str | None = None) -> None:
        """See `base_model.require_known_words`."""
        base_model.require_known_words(self.tokenizer, noun, identifier)

    def tokenize(self, prompts: list[str]) -> Int[Tensor, "n tokens"]:
        """Token ids, padded to the model's length, on the device."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        batch = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return batch.input_ids.to(self.device)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Float[Tensor, "n tokens dim"]:
        """Text embeddings; each distinct prompt is encoded once and remembered."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]
        if new:
            hidden = self.text_encoder(self.tokenize(new).to(self.text_encoder.device))[0].to(self.device)
            self._embeddings.update(zip(new, hidden, strict=True))
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    def forget_prompts(self) -> None:
        """Drop remembered embeddings, after the text encoder's weights changed."""
        self._embeddings.clear()

    def encode_images(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n channels cells cells"]:
        """Latents of images: the posterior's mean, scaled to about unit variance; differentiable.

        Args:
            images: in [0, 1]; resized bilinearly to the model's size where needed.

        Returns:
            As many cells as the model's size has, float32.
        """
        size = self.image_size
        if images.shape[-2:] != (size, size):
            smaller = size < max(images.shape[-2:])
            images = nn.functional.interpolate(
                images, size=(size, size), mode="bilinear", antialias=smaller, align_corners=False
            )
        return (self._graphed_encoder or encoder_call(self.vae, self.dtype))(images)

    def encode_all(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n channels cells cells"]:
        """Latents of any number of images in [0, 1], without gradient."""
        with torch.no_grad():
            return torch.cat([self.encode_images(part.to(self.device)) for part in images.split(self._at_once)])

    @property
    def _at_once(self) -> int:
        """Images that the VAE sees at once: its activations are many times as large as an image."""
        return max(1, VAE_PIXELS // self.image_size**2)

    def decode_latents(self, latents: Float[Tensor, "n channels cells cells"]) -> Float[Tensor, "n 3 pixels pixels"]:
        """Images of latents, float32 in [0, 1]."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.dtype)
        images = torch.cat([self.vae.decode(part).sample.float() for part in scaled.split(self._at_once)])
        return (images * 0.5 + 0.5).clamp(0, 1)

    def predict(
        self,
        noisy: Float[Tensor, "n channels height width"],
        timesteps: Int[Tensor, " n"] | Int[Tensor, ""],
        embeddings: Float[Tensor, "n tokens dim"],
    ) -> Float[Tensor, "n channels height width"]:
        """The UNet's raw output, float32: noise or velocity, as `scheduler.config.prediction_type` says.

        Args:
            noisy: noisy latents.
            timesteps: of each, or one of all.
            embeddings: of the prompts.
        """
        if self._graphed_unet is None or torch.is_grad_enabled():
            return unet_call(self.unet, self.dtype)(noisy, timesteps, embeddings)
        return self._graphed_unet(noisy, timesteps.to(noisy.device).expand(len(noisy)), embeddings)

    def predict_noise(
        self,
        noisy: Float[Tensor, "n channels height width"],
        timesteps: Int[Tensor, " n"] | Int[Tensor, ""],
        embeddings: Float[Tensor, "n tokens dim"],
    ) -> Float[Tensor, "n channels height width"]:
        """Like `predict`, but always the noise, also for a model that predicts velocity (Salimans and Ho 2022)."""
        output = self.predict(noisy, timesteps, embeddings)
        if self.scheduler.config.prediction_type != "v_prediction":
            return output
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt() * output + (1 - alpha).sqrt() * noisy


def load_components(
    base: BaseModelRef,
    device: torch.device | str,
    checkpoint: DreamBoothCheckpoint | None = None,
    *,
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    acceleration: Acceleration = "graphs",
) -> Components:
    """Load a base model, with a checkpoint's UNet and text encoder in place of its own where one is given.

    Args:
        base: the base model.
        device: where the networks go.
        checkpoint: a fine-tuned UNet and text-encoder pair; a LoRA is merged into the base model's weights.
        dtype: of the networks; by default float16 for inference on CUDA, else float32.
        trainable: leave UNet and text encoder with gradients, by default in float32; otherwise everything is frozen.
        acceleration: see `Components.accelerate`; a trainable model has none.

    Raises:
        BaseModelError: the model is missing, incomplete or damaged, or the checkpoint does not fit it.
    """
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" and not trainable else torch.float32
    folder = base_model.model_folder(base)
    base_model.check_folder(folder, base.variant)
    try:
        with no_bars_of_transformers():
            parts = _load_parts(folder, base.variant, dtype)
    except BaseModelError:
        raise
    except Exception as error:  # diffusers and transformers raise many kinds for a folder that does not fit together
        raise BaseModelError(
            f"{folder}: this base model could not be loaded ({error}). Restore the folder, or set base_model.path to "
            "a complete one."
        ) from error
    if checkpoint is not None:
        _load_checkpoint(parts, checkpoint)
    for name in base_model.NETWORKS:
        train = trainable and name != "vae"
        # The base class' method, since diffusers' own warns at every cast of a network without exceptions to it.
        nn.Module.to(parts[name], device, dtype)
        parts[name].requires_grad_(train).eval()
    components = Components(**parts, base=base, device=device, dtype=dtype, checkpoint=checkpoint)
    _require_working(components, folder)
    components.accelerate("none" if trainable else acceleration)
    return components


def _require_working(components: Components, folder: Path) -> None:
    """Check the parts' settings, and that the parts fit each other, by one small pass.

    Raises:
        BaseModelError: they do not, as where a setting was altered.
    """
    size, scale = components.unet.config.sample_size, components.vae.config.scaling_factor
    kind, length = components.scheduler.config.prediction_type, components.tokenizer.model_max_length
    try:
        if not (isinstance(size, int) and 1 <= size <= MAX_CELLS):
            raise ValueError(f"sample_size of the UNet is {size}, and not from 1 to {MAX_CELLS}")
        if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
            raise ValueError(f"scaling_factor of the VAE is {scale}, and no positive number")
        if kind not in PREDICTIONS:
            raise ValueError(f"prediction_type of the scheduler is {kind}, and none of {', '.join(PREDICTIONS)}")
        if not (isinstance(length, int) and length >= 1):
            raise ValueError(f"model_max_length of the tokenizer is {length}, and no positive number")
        alphas = components.alphas_cumprod
        if not (len(alphas) and alphas.isfinite().all() and (alphas >= 0).all() and (alphas <= 1).all()):
            raise ValueError("its scheduler's betas are no noise schedule")
        with torch.no_grad():
            embeddings = components.encode_prompts([""])
            latents = torch.zeros(1, components.latent_shape[0], TRIED_CELLS, TRIED_CELLS, device=components.device)
            noise = components.predict(latents, torch.tensor(0, device=components.device), embeddings)
            pixels = components.decode_latents(noise)
            again = encoder_call(components.vae, components.dtype)(pixels)
        if not noise.shape == latents.shape == again.shape:
            raise ValueError("UNet and VAE have latents of other shapes")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # diffusers and transformers raise many kinds where settings do not fit the weights
        raise BaseModelError(
            f"{folder}: the parts of this base model do not work together ({gist(error)}). Restore the folder, or set "
            "base_model.path to a complete one."
        ) from error
    components.forget_prompts()


def _load_parts(folder: Path, variant: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """All parts on the CPU, in the dtype that is wanted, whatever the files hold."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    options = {"use_safetensors": True, "output_loading_info": True, "torch_dtype": dtype}
    classes = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
    parts: dict[str, Any] = {}
    for name, kind in classes.items():
        if name == "text_encoder":
            loading = {**options, "dtype": options["torch_dtype"]}
            del loading["torch_dtype"]
        else:
            loading = {**options, "low_cpu_mem_usage": False}
        loading["variant"] = base_model.loaded_variant(folder / name, variant)
        parts[name], info = kind.from_pretrained(folder, subfolder=name, **loading)
        # Buffers such as position ids may be absent; a missing weight would be left random.
        missing = set(info["missing_keys"]) & {key for key, _ in parts[name].named_parameters()}
        if missing:
            raise BaseModelError(
                f"{folder / name}: the weights lack {min(missing)} and {len(missing) - 1} more. Restore the folder, "
                "or set base_model.path to a complete one."
            )
    parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    # A latent model's samples are not bounded by 1, so they must never be clipped, whatever an old config says.
    parts["scheduler"] = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", clip_sample=False)
    return parts


def _load_checkpoint(parts: dict[str, Any], checkpoint: DreamBoothCheckpoint) -> None:
    for name, weights in (("unet", checkpoint.unet), ("text_encoder", checkpoint.text_encoder)):
        try:
            load_weights(parts[name], weights.load())
        except (RuntimeError, KeyError, SafetensorError) as error:
            raise BaseModelError(
                f"{weights.uri}: this checkpoint is damaged or does not fit the base model "
                f"{checkpoint.base_model.path}. Use the base model that it was fine-tuned from, or fine-tune again."
            ) from error


def half(network: nn.Module) -> dict[str, Tensor]:
    """Weights for inference: floating-point tensors in float16."""
    return {
        name: value.detach().half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a network full weights, or add a LoRA to the base model's weights that it has.

    Raises:
        RuntimeError, KeyError: they do not fit the network.
    """
    full = lora.merged(network.state_dict(), weights) if lora.is_lora(weights) else _renamed(weights, network)
    network.load_state_dict(full)


def _renamed(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights under the network's own names: versions of transformers differ in a text encoder's prefix."""
    names, prefix = set(network.state_dict()), "text_model."
    if any(name.startswith(prefix) for name in names):
        return {name if name in names else prefix + name: value for name, value in weights.items()}
    return {name.removeprefix(prefix): value for name, value in weights.items()}
