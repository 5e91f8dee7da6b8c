"""The model that guides an asset made from a prompt alone: the base model, or one that was fine-tuned from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.config.generation import BASE_GUIDE, RUN_GUIDE, GenerationConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.base_model import REPOSITORY, identified, model_folder, resolve
from dreambooth3d.diffusion.model.components import Components, half, load_components
from dreambooth3d.diffusion.model.lora import LORA_FILE
from dreambooth3d.diffusion.model.nouns import common_nouns, nearest_nouns, noun_of_prompt
from dreambooth3d.diffusion.model.pretrained import import_checkpoints, pretrained_digest, pretrained_folders
from dreambooth3d.errors import BaseModelError, ConfigError
from dreambooth3d.weights import save_weights, sha256_file

SETTING = "generation.guide"
CLOSED_VOCABULARY = 5000
"""Tokens below which a model knows the words that it was trained on and no others; CLIP's tokenizer has 49,408."""


def is_of_run(guide: str) -> bool:
    """Whether a guide is a run's checkpoint, which only those can find who know the runs."""
    return guide.startswith(RUN_GUIDE)


def guide_identity(guide: str) -> str:
    """`sha256:<digest>` of a guide's weights; the base model and a run's checkpoint are known by other means: `none`.

    Raises:
        BaseModelError: there is no such folder, or no weights in it.
    """
    if guide == BASE_GUIDE or is_of_run(guide):
        return "none"
    lora = _lora_file(guide)
    digest = sha256_file(lora) if lora is not None else pretrained_digest(_model_folder(guide))
    return f"sha256:{digest}"


def read_guide(base_model: BaseModelConfig, base_digest: str, guide: str, work: Path) -> DreamBoothCheckpoint:
    """The guide as a checkpoint of the base model, in half precision.

    Args:
        base_model: what the guide was fine-tuned from.
        base_digest: that pins it.
        guide: `base`, or a folder or file: a model in diffusers' layout, the latest of several, or a LoRA.
        work: folder for the files.

    Raises:
        BaseModelError: the weights are missing, damaged or do not fit the base model.
        ConfigError: a run's checkpoint is asked for here, where runs are not known.
    """
    if is_of_run(guide):
        raise ConfigError(
            f"{SETTING}: {guide} is a pipeline's run, which is known to pipelines only. Write the checkpoint with "
            "`dreambooth3d checkpoint export`, and name its folder."
        )
    components = load_components(identified(base_model, base_digest), "cpu", dtype=torch.float32)
    lora = None if guide == BASE_GUIDE else _lora_file(guide)
    if guide != BASE_GUIDE and lora is None:
        ((_, checkpoint),) = import_checkpoints(_model_folder(guide), components, work).items()
        return checkpoint
    if lora is not None:
        _fuse(components, lora)
    unet = save_weights(half(components.unet), work / "checkpoints" / "unet.safetensors")
    text_encoder = save_weights(half(components.text_encoder), work / "checkpoints" / "text_encoder.safetensors")
    return DreamBoothCheckpoint(0, unet, text_encoder, components.base)


def _found(guide: str) -> Path | None:
    """The file or folder that a guide names, seen from the working directory or the repository."""
    given = Path(guide).expanduser()
    return next((path for path in (given, REPOSITORY / given) if path.exists()), None)


def _lora_file(guide: str) -> Path | None:
    """The LoRA that a guide is, or None."""
    found = _found(guide)
    if found is None:
        raise BaseModelError(
            f"{SETTING}: there is no {guide}. Write base, the folder of a fine-tuned model or a LoRA, or run:NAME."
        )
    if found.is_file() and found.suffix == ".safetensors":
        return found
    return found / LORA_FILE if (found / LORA_FILE).is_file() else None


def _model_folder(guide: str) -> dict[int, Path]:
    """The latest model of a folder, by its step."""
    folders = pretrained_folders(guide, 0, SETTING)
    return {max(folders): folders[max(folders)]}


def _fuse(components: Components, lora: Path) -> None:
    """Add a LoRA of any layout that diffusers reads to the weights of UNet and text encoder."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        components.vae, components.text_encoder, components.tokenizer, components.unet, components.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    try:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    except Exception as error:  # diffusers and peft raise many kinds for weights that do not fit
        raise BaseModelError(
            f"{SETTING}: {lora} is no LoRA of the base model. Set base_model.path to the model that it was trained on."
        ) from error


def prompt_noun(config: GenerationConfig, base_model: BaseModelConfig) -> str:
    """The class noun of what is to be made, after a check that the model can know it.

    Raises:
        BaseModelError: the embedded base model knows no noun of the prompt; names those that are nearest.
    """
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(model_folder(resolve(base_model)) / "tokenizer"))
    if len(tokenizer) >= CLOSED_VOCABULARY:
        return config.class_noun or noun_of_prompt(config.prompt)

    def is_token(word: str) -> bool:
        return len(tokenizer.tokenize(word)) == 1 and tokenizer.unk_token not in tokenizer.tokenize(word)

    # A fine-tuned model may have learned a word that the base model has only a token for.
    learned = set(common_nouns(is_token))
    is_known: Callable[[str], bool] = learned.__contains__ if config.guide == BASE_GUIDE else is_token
    noun = config.class_noun or noun_of_prompt(config.prompt, is_known)
    if is_known(noun):
        return noun
    near = nearest_nouns(noun, learned.__contains__)
    known = f"Nearest to it: {', '.join(near)}" if near else f"It knows {', '.join(common_nouns(is_token))}"
    raise BaseModelError(
        f"generation.prompt: the base model does not know the word {noun!r}. {known}. Write a prompt with one of these "
        "nouns, or choose a base model with a larger vocabulary."
    )
