"""Writing and reading the bundled models' folders, in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextModel, CLIPTokenizer

from dreambooth3d.errors import BaseModelError
from dreambooth3d.toybox.captions import IDENTIFIERS, VOCABULARY
from dreambooth3d.toybox.pretraining.networks import (
    IMAGE_SIZE,
    PROMPT_TOKENS,
    new_scheduler,
    new_scorer,
    new_text_encoder,
)
from dreambooth3d.toybox.pretraining.scorers import IMAGE_MEAN, IMAGE_STD
from dreambooth3d.toybox.pretraining.vocabulary import with_vocabulary
from dreambooth3d.toybox.tokenizer import build_tokenizer
from dreambooth3d.weights import no_longer_as_shipped

BASE_MODEL = "toybox"


def toybox_tokenizer() -> CLIPTokenizer:
    """The tokenizer that base model and scorers share."""
    return build_tokenizer([*VOCABULARY, *IDENTIFIERS], PROMPT_TOKENS)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer that lies beside a model's weights."""
    return CLIPTokenizer.from_pretrained(folder)


def enlarged_base_model(models: Path, tokenizer: CLIPTokenizer) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Trained denoiser and text encoder in float32, the latter with the vocabulary of `tokenizer`."""
    pipeline = load_base_model(models, torch.device("cpu"))
    larger = new_text_encoder(tokenizer)
    return pipeline.unet, with_vocabulary(pipeline.text_encoder, pipeline.tokenizer, larger, tokenizer)


def enlarged_scorer(name: str, models: Path, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A trained scorer in float32 with the vocabulary of `tokenizer`."""
    trained = load_scorer(name, models, torch.device("cpu"))
    return with_vocabulary(trained, load_tokenizer(models / name), new_scorer(name, tokenizer), tokenizer)


def save_vae(vae: AutoencoderKL, models: Path) -> None:
    """Write the autoencoder into the base model's folder."""
    no_longer_as_shipped(models / BASE_MODEL)
    vae.to(torch.float16).save_pretrained(models / BASE_MODEL / "vae")
    _forget_origin(models / BASE_MODEL / "vae")


def _forget_origin(folder: Path) -> None:
    """Leave out of a model's configuration from which folder it was loaded: a path of the machine that trained it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def load_vae(models: Path, device: torch.device) -> AutoencoderKL:
    """The trained autoencoder in float32.

    Raises:
        BaseModelError: stage `vae` has not run.
    """
    folder = models / BASE_MODEL / "vae"
    if not folder.exists():
        raise BaseModelError(f"{folder}: no autoencoder yet. Run the stage vae first.")
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    return vae.to(device).eval().requires_grad_(False)


def save_base_model(vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, models: Path) -> None:
    """Write the complete folder that `StableDiffusionPipeline.from_pretrained` loads."""
    no_longer_as_shipped(models / BASE_MODEL)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=toybox_tokenizer(),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to("cpu", torch.float16).save_pretrained(models / BASE_MODEL, safe_serialization=True)
    for part in ("vae", "unet"):
        _forget_origin(models / BASE_MODEL / part)


def load_base_model(models: Path, device: torch.device) -> StableDiffusionPipeline:
    """The base model in float32, without progress bars."""
    pipeline = StableDiffusionPipeline.from_pretrained(models / BASE_MODEL, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def save_scorer(model: CLIPModel, name: str, models: Path) -> None:
    """Write a scorer with its processor."""
    folder = models / name
    no_longer_as_shipped(folder)
    model.to("cpu", torch.float16).save_pretrained(folder)
    images = CLIPImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    CLIPProcessor(images, toybox_tokenizer()).save_pretrained(folder)


def load_scorer(name: str, models: Path, device: torch.device) -> CLIPModel:
    """A trained scorer in float32."""
    return CLIPModel.from_pretrained(models / name, torch_dtype=torch.float32).to(device).eval().requires_grad_(False)
