"""Architectures of the bundled models, all in the layouts of diffusers and transformers."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

IMAGE_SIZE = 64
PROMPT_TOKENS = 24
TEXT_WIDTH = 160


def new_vae() -> AutoencoderKL:
    """64x64 images to 16x16x4 latents; 1.7 M parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=IMAGE_SIZE,
    )


def new_unet() -> UNet2DConditionModel:
    """Noise prediction on 16x16x4 latents; 5.3 M parameters.

    Attention at 8x8 and 4x4 only, in heads of 24 and 32 channels: attention kernels want multiples of eight, and the
    top level spends its time on convolutions.
    """
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        layers_per_block=1,
        block_out_channels=(96, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, by a name that diffusers keeps for old configs
        norm_num_groups=16,
    )


def _special_tokens(tokenizer: CLIPTokenizer) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": tokenizer.model_max_length,
    }


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Prompts to (tokens, 160) features; 0.9 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=TEXT_WIDTH,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            **_special_tokens(tokenizer),
        )
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


# The two scorers differ in depth, width, heads and feature size, so that they do not share their blind spots.
_SCORERS = {
    "selector": {
        "vision": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4},
        "patch_size": 8,
        "text": {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4},
        "projection_dim": 96,
    },
    "judge": {
        "vision": {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 5, "num_attention_heads": 8},
        "patch_size": 8,
        "text": {"hidden_size": 80, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4},
        "projection_dim": 128,
    },
}
SCORER_NAMES = tuple(_SCORERS)


def new_scorer(name: str, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP model of 0.6 to 0.9 M parameters, by the name `selector` or `judge`."""
    shape = _SCORERS[name]
    vision = {**shape["vision"], "image_size": IMAGE_SIZE, "patch_size": shape["patch_size"]}
    text = {**shape["text"], **_special_tokens(tokenizer)}
    for part in (vision, text):
        part["projection_dim"] = shape["projection_dim"]
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape["projection_dim"]))


def parameter_count(model: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in model.parameters())
