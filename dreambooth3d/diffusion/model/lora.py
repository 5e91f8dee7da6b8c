"""LoRA: small trained matrices beside frozen ones, by peft, stored in diffusers' layout. Its alpha equals its rank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.errors import ConfigError
from dreambooth3d.weights import WeightsRef, save_weights

# The attention's projections, as in diffusers' train_dreambooth_lora.py.
ADAPTED = {
    "unet": ("to_q", "to_k", "to_v", "to_out.0"),
    "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj"),
}
LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers' `load_lora_weights` looks for a LoRA in a folder."""
KOHYA_FILE = "kohya_lora.safetensors"
"""The same in the layout that ComfyUI and AUTOMATIC1111's web UI read."""
_KOHYA_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
_DOWN = re.compile(r"\.(lora|lora_linear_layer)\.down\.weight$")
_TEXT_PREFIX = "text_model."


def add_adapters(network: nn.Module, kind: str, rank: int, generator: torch.Generator) -> None:
    """Freeze a network and put a float32 LoRA on its attention, which at first changes nothing.

    Args:
        network: a UNet or text encoder, of any dtype.
        kind: `unet` or `text_encoder`.
        rank: of the LoRA.
        generator: on the CPU; draws the first weights, normal with standard deviation 1 / rank.
    """
    from peft import LoraConfig

    network.requires_grad_(False)
    device = next(network.parameters()).device
    # peft draws first weights as well, from the global generators, which others use.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ADAPTED[kind]))
        network.add_adapter(lora)  # pyright: ignore[reportCallIssue]  # a method of both libraries' models
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            first = torch.zeros(weight.shape)
            if "lora_A" in name:
                first = torch.randn(weight.shape, generator=generator) / rank
            weight.data = first.to(device)


def adapter_weights(network: nn.Module, kind: str) -> dict[str, Tensor]:
    """A network's LoRA, float32, under diffusers' names."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers

    weights = {
        name.replace(".default.", "."): weight.detach().float()
        for name, weight in network.named_parameters()
        if "lora_" in name
    }
    if kind == "text_encoder":
        # Versions of transformers differ in this prefix; the file format has it.
        weights = {_TEXT_PREFIX + name.removeprefix(_TEXT_PREFIX): weight for name, weight in weights.items()}
    return convert_state_dict_to_diffusers(weights)


def is_lora(weights: Mapping[str, Tensor]) -> bool:
    """Whether stored weights are a LoRA on the base model's; one without any tensor leaves these as they are."""
    return all(re.search(r"\.lora(_linear_layer)?\.(down|up)\.weight$", name) for name in weights)


def merged(weights: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Full weights with a LoRA added: W + up @ down, computed in float32, in W's dtype.

    Raises:
        KeyError: the weights lack a matrix that the LoRA changes.
        RuntimeError: the LoRA's shapes do not fit.

    Source: LoRA (Hu et al. 2021), section 4.1, with alpha = rank.
    """
    result = dict(weights)
    for module, (down, up) in _pairs(adapters).items():
        name = _name_in(weights, f"{module}.weight")
        matrix = result[name]
        if matrix.shape != (len(up), down.shape[1]):
            raise RuntimeError(f"{name} is {tuple(matrix.shape)}, and its LoRA {len(up)} by {down.shape[1]}")
        result[name] = (matrix.float() + up.float() @ down.float()).to(matrix.dtype)
    return result


def combined(start: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where a LoRA that was trained on top of `start` leads, as weights for the base model.

    Args:
        start: of one network: full weights, or a LoRA on the base model's, perhaps without any tensor.
        adapters: the LoRA on top.

    Returns:
        Full weights if `start` is full; else one LoRA that is the sum of both, its rank the sum of theirs.
    """
    adapters = {name: weight.cpu() for name, weight in adapters.items()}
    if not is_lora(start):
        return merged(start, adapters)
    result = {}
    for name in dict.fromkeys((*start, *adapters)):
        parts = [weights[name] for weights in (start, adapters) if name in weights]
        result[name] = torch.cat(parts, dim=0 if _DOWN.search(name) else 1)
    return result


def _pairs(adapters: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(rank, in) and (out, rank) matrices by the name of the module that they change."""
    return {
        _DOWN.sub("", name): (down, adapters[name.replace(".down.weight", ".up.weight")])
        for name, down in adapters.items()
        if _DOWN.search(name)
    }


def _name_in(weights: Mapping[str, Tensor], name: str) -> str:
    """The name with or without the text encoder's prefix, whichever is there."""
    names = (name, name.removeprefix(_TEXT_PREFIX), _TEXT_PREFIX + name)
    return next((name for name in names if name in weights), name)


def export_lora(checkpoint: DreamBoothCheckpoint, file: Path | str) -> WeightsRef:
    """Write a LoRA checkpoint as one file that `StableDiffusionPipeline.load_lora_weights` opens.

    Raises:
        ConfigError: the checkpoint holds full weights.
    """
    weights = _adapters_of(checkpoint)
    tensors = {f"{kind}.{name}": weight for kind, each in weights.items() for name, weight in each.items()}
    return save_weights(tensors, Path(file))


def export_kohya_lora(checkpoint: DreamBoothCheckpoint, file: Path | str) -> WeightsRef:
    """Write a LoRA checkpoint as one file that ComfyUI and AUTOMATIC1111's web UI open.

    Raises:
        ConfigError: the checkpoint holds full weights.
    """
    return save_weights(kohya_weights(_adapters_of(checkpoint)), Path(file))


def kohya_weights(adapters: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A LoRA under the names of kohya-ss' sd-scripts, with each layer's alpha, which is its rank.

    Args:
        adapters: by network, `unet` and `text_encoder`, under diffusers' names.

    Source: `lora_name` in networks/lora.py of kohya-ss/sd-scripts: the module's path behind a prefix, with underscores.
    """
    named = {}
    for kind, weights in adapters.items():
        for module, (down, up) in _pairs(weights).items():
            layer = _KOHYA_PREFIXES[kind] + module.replace(".", "_")
            named |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
            named[f"{layer}.alpha"] = torch.tensor(float(len(down)))
    return named


def _adapters_of(checkpoint: DreamBoothCheckpoint) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's LoRA by network."""
    found = {}
    for kind, ref in (("unet", checkpoint.unet), ("text_encoder", checkpoint.text_encoder)):
        weights = ref.load()
        if not is_lora(weights):
            raise ConfigError(
                f"{ref.uri}: the checkpoint of step {checkpoint.step} holds full weights and no LoRA. Export it "
                "without --lora, or fine-tune again with lora_rank above 0."
            )
        found[kind] = weights
    return found
