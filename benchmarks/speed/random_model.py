"""Random-weight models in exactly the layout and size of Stable Diffusion 1.5 and 2.1, or smaller.

They cost what the real ones cost and paint noise, so speed, memory and the whole code path can be measured without a
download. `StableDiffusionPipeline.from_pretrained(folder)` loads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers import __version__ as diffusers_version
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from dreambooth3d.toybox.tokenizer import END, START, learn_merges

Kind = Literal["sd15", "sd21"]
VOCABULARY = 49_408
TOKENS = 77
WORDS = tuple(
    "a an the photo picture of and with in on wearing one subject sks front side back overhead view dog cat clock can "
    "duck teapot teddy bear toy sneaker backpack vase red green blue yellow orange purple brown white black grey hat "
    "unrealistic blurry low quality out focus ugly contrast dull dark resolution gloomy".split()
)
"""Each is one token; any other word falls into letters."""


@dataclass(frozen=True)
class _Layout:
    """What tells the two apart. Sizes are those of `config.json` on the hub."""

    sample_size: int
    heads: int | tuple[int, ...]
    linear_projection: bool
    upcast_attention: bool
    text_width: int
    text_layers: int
    text_heads: int
    text_projection: int
    text_activation: str
    pad_token: str


_LAYOUTS: dict[str, _Layout] = {
    "sd15": _Layout(64, 8, False, False, 768, 12, 12, 768, "quick_gelu", END),
    # The text encoder is OpenCLIP's ViT-H without its last layer, so that its output is the penultimate one.
    "sd21": _Layout(96, (5, 10, 20, 20), True, True, 1024, 23, 16, 512, "gelu", "!"),
}
_UNET_WIDTHS, _VAE_WIDTHS = (320, 640, 1280, 1280), (128, 256, 512, 512)


def write_model(
    folder: Path | str,
    kind: Kind = "sd15",
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    *,
    scale: float = 1.0,
    variant: str | None = None,
    device: torch.device | str | None = None,
) -> Path:
    """Write a random-weight model folder.

    Args:
        folder: is made; what it holds already is overwritten.
        kind: `sd15` predicts noise at 512 pixels, `sd21` velocity at 768.
        seed: of the weights, which are the same for one seed and one kind of device, whatever the dtype.
        dtype: of the files. Activations stay finite in float16.
        scale: of widths, depths and image size. 1 is the real size (UNet 860 or 866 million parameters); 0.05 runs on
            a CPU in milliseconds.
        variant: written into the weights' file names, as in `model.fp16.safetensors`.
        device: where the weights are drawn; CUDA where there is one.

    Returns:
        The folder.
    """
    folder = Path(folder)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    networks = build_networks(kind, scale)
    for index, (name, network) in enumerate(networks.items()):
        # The base class' method, since diffusers' own warns at every cast of a network.
        network = nn.Module.to(network, dtype).to_empty(device=device)
        # Numbers of its own for each network, so that one does not depend on another's size.
        draw_weights(network, torch.Generator(device).manual_seed(1000 * seed + index))
        network.save_pretrained(folder / name, safe_serialization=True, variant=variant)
        del network
    _scheduler(kind).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer", _LAYOUTS[kind].pad_token)
    _write_index(folder, networks, _scheduler(kind))
    return folder


def build_networks(kind: Kind, scale: float = 1.0) -> dict[str, nn.Module]:
    """Text encoder, UNet and VAE by their folder's name, on the meta device: shapes without values."""
    layout = _LAYOUTS[kind]
    with torch.device("meta"):
        text_encoder = _text_encoder(layout, scale)
        unet = _unet(layout, text_encoder.config.hidden_size, scale)
        return {"text_encoder": text_encoder, "unet": unet, "vae": _vae(layout, scale)}


def _sized(full: int, scale: float, multiple: int) -> int:
    """`full * scale`, rounded to a positive multiple."""
    return max(1, round(full * scale / multiple)) * multiple


def _sample_size(layout: _Layout, scale: float) -> int:
    return _sized(layout.sample_size, scale, 8)


def _groups(widths: Sequence[int]) -> int:
    """Groups of the norms: 32 as in the real models, fewer in narrow ones, which need more than one channel each."""
    return math.gcd(32, *widths) if min(widths) >= 64 else max(1, math.gcd(32, *widths) // 4)


def _unet(layout: _Layout, text_width: int, scale: float) -> UNet2DConditionModel:
    heads = layout.heads
    widths = [_sized(width, scale, heads if isinstance(heads, int) else max(heads)) for width in _UNET_WIDTHS]
    return UNet2DConditionModel(
        sample_size=_sample_size(layout, scale),
        block_out_channels=tuple(widths),
        norm_num_groups=_groups(widths),
        cross_attention_dim=text_width,
        # Diffusers' name for what is the number of heads; a list gives each level its own.
        attention_head_dim=heads,
        use_linear_projection=layout.linear_projection,
        upcast_attention=layout.upcast_attention,
    )


def _vae(layout: _Layout, scale: float) -> AutoencoderKL:
    widths = [_sized(width, scale, 8) for width in _VAE_WIDTHS]
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=tuple(widths),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=_groups(widths),
        sample_size=8 * _sample_size(layout, scale),
        scaling_factor=0.18215,
    )


def _text_encoder(layout: _Layout, scale: float) -> CLIPTextModel:
    width = _sized(layout.text_width, scale, layout.text_heads)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=max(2, round(layout.text_layers * scale)),
            num_attention_heads=layout.text_heads,
            max_position_embeddings=TOKENS,
            projection_dim=_sized(layout.text_projection, scale, 8),
            hidden_act=layout.text_activation,
            bos_token_id=VOCABULARY - 2,
            eos_token_id=VOCABULARY - 1,
            pad_token_id=1,
        )
    )


@torch.no_grad()
def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all parameters: matrices and kernels that keep activations small, norms 1, biases 0.

    Their spread is 1 / sqrt(3 inputs), that of PyTorch's own first weights.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        spread = 0.02 if "embedding" in name and "time" not in name else (3 * parameter[0].numel()) ** -0.5
        drawn = torch.randn(parameter.shape, generator=generator, device=parameter.device)
        parameter.copy_(drawn * spread)


def _scheduler(kind: Kind) -> PNDMScheduler | DDIMScheduler:
    common = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False,
        "steps_offset": 1,
    }  # fmt: skip
    if kind == "sd15":
        return PNDMScheduler(**common, skip_prk_steps=True)
    return DDIMScheduler(**common, clip_sample=False, prediction_type="v_prediction")


def _write_index(folder: Path, networks: dict[str, nn.Module], scheduler: object) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers_version,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", type(networks["text_encoder"]).__name__],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", type(networks["unet"]).__name__],
        "vae": ["diffusers", type(networks["vae"]).__name__],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def write_tokenizer(folder: Path, pad_token: str = END) -> None:
    """Write `vocab.json` and `merges.txt` with 49,408 entries, in CLIP's order, and the settings beside them.

    The order is bytes, bytes that end a word, merges, start, end. After the merges that `WORDS` need come made-up ones
    of bytes that no English text holds, so that other words fall into letters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = _byte_letters()
    count = VOCABULARY - 2 * len(letters) - 2
    merges = learn_merges(WORDS)
    merges += _unused_merges([letter for letter in letters if ord(letter) > 0x7E], count - len(merges))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    settings = {
        **special, "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": TOKENS,
        "tokenizer_class": "CLIPTokenizer",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _byte_letters() -> list[str]:
    """One printable character per byte, in CLIP's order: printable bytes are themselves, the others follow from 256.

    Source: GPT-2's byte-level encoding (Radford et al. 2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = len([byte for byte in range(256) if byte not in printable])
    return [chr(code) for code in [*printable, *range(256, 256 + others)]]


def _unused_merges(letters: Sequence[str], count: int) -> list[tuple[str, str]]:
    """`count` merges of pairs of letters, then of such a pair and a third letter; all results differ."""
    pairs = [(first, second) for first in letters for second in letters]
    triples = (("".join(pair), third) for pair in pairs for third in letters)
    return [*pairs, *(next(triples) for _ in range(count - len(pairs)))][:count]
