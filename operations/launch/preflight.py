"""Everything that can be known to fail before a run starts, so that a bad input leaves nothing half-written."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.diffusion.finetuning.optimizers import require_optimizer
from dreambooth3d.diffusion.model.base_model import (
    model_folder,
    require_known_words,
    require_read_whole,
    resolve,
)
from dreambooth3d.diffusion.model.guides import guide_identity, is_of_run, prompt_noun
from dreambooth3d.diffusion.model.pretrained import pretrained_folders
from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.check import inspect_folder, with_captions
from dreambooth3d.photos.dataset import dataset_hash, ground_truth, require_ground_truth
from dreambooth3d.photos.models import photo_models
from dreambooth3d.photos.prompted import prompted_name
from dreambooth3d.photos.subject import resolve_folder, subject_name
from dreambooth3d.prompts import names
from dreambooth3d.runtime import pick_device
from dreambooth3d.surface.files import check_meshes
from operations.launch.scorers import check_scorers


def preflight(config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> str:
    """Check photos or prompt and guide, dataset, base model, vocabulary, scorers, contexts and device.

    Returns:
        The subject's name.

    Raises:
        DreamBooth3DError: one sentence for the first thing that is wrong.
    """
    _check_device(config.device)
    if isinstance(config, TextTo3dConfig):
        return _check_generation(config)
    folder, class_noun, identifier = _check_photos(config.photos)
    check_scorers(config.scorers)
    if isinstance(config, CeilingConfig):
        require_ground_truth(ground_truth(config.photos))
    else:
        _check_contexts(config.contexts, class_noun, identifier)
        _check_words(config, class_noun, identifier)
        _check_steps(config)
        _check_optimizers(config)
        check_meshes(config.init_nerf, config.refine_nerf, config.edit_nerf)
    return subject_name(folder)


def _check_generation(config: TextTo3dConfig) -> str:
    asked = config.generation
    prompt_noun(asked, config.base_model)
    require_read_whole(model_folder(resolve(config.base_model)), asked.prompt, "generation.prompt")
    if is_of_run(asked.guide):
        from operations.records.checkpoints import find_guide

        find_guide(asked.guide)
    guide_identity(asked.guide)
    check_scorers(config.scorers)
    check_meshes(config.init_nerf, config.refine_nerf)
    return prompted_name(asked.prompt)


def _check_device(device: str) -> None:
    if device == "cuda" and pick_device("auto").type != "cuda":
        raise ConfigError("device: cuda is asked for, but PyTorch sees no GPU. Set device: auto or cpu.")


def _check_photos(config: PhotosConfig) -> tuple[Path, str, str]:
    folder, info = resolve_folder(config)
    # Photos first: "one photo is empty" says more than "the data differ from their hash".
    with_captions(inspect_folder(folder, config), config, info)
    photo_models(config)
    dataset_hash(config)
    return folder, info.class_noun, info.identifier


def _check_words(config: TrainingConfig, class_noun: str, identifier: str) -> None:
    from transformers import CLIPTokenizer

    folder = model_folder(resolve(config.base_model))
    require_known_words(CLIPTokenizer.from_pretrained(str(folder / "tokenizer")), class_noun, identifier)
    require_read_whole(folder, f"a photo of a {identifier} {class_noun}", "photos.class_noun")
    for index, prompt in enumerate(config.contexts):
        require_read_whole(folder, prompt, f"contexts.{index}")


def _check_contexts(prompts: tuple[str, ...], class_noun: str, identifier: str) -> None:
    """Each context must name the subject, or it would make just any member of the class."""
    for index, prompt in enumerate(prompts):
        if not (names(prompt, identifier) and names(prompt, class_noun)):
            raise ConfigError(
                f"contexts.{index}: {prompt!r} does not name the subject, which is {identifier!r} and {class_noun!r}. "
                f"Write for example 'a photo of a red {identifier} {class_noun}'."
            )


def _check_steps(config: TrainingConfig) -> None:
    """Checkpoints must exist where they are asked for."""
    finetune, select = config.finetune_dreambooth, config.select_checkpoints
    if finetune.pretrained is None and finetune.checkpoint_every > finetune.steps:
        raise ConfigError(
            f"finetune_dreambooth.checkpoint_every: {finetune.checkpoint_every} exceeds steps ({finetune.steps}), so "
            "that no checkpoint would be kept. Lower it."
        )
    kept = _kept_steps(finetune)
    for name in ("partial_step", "full_step"):
        step = getattr(select, name)
        if step is None or step in kept:
            continue
        remedy = f"Choose one of {', '.join(map(str, kept))}"
        if finetune.pretrained is None:
            remedy = (
                f"Choose a multiple of finetune_dreambooth.checkpoint_every ({finetune.checkpoint_every}) up to "
                f"{finetune.steps}"
            )
            if finetune.checkpoints_kept is not None:
                remedy += f", of which the last {finetune.checkpoints_kept} are kept (checkpoints_kept)"
        raise ConfigError(f"select_checkpoints.{name}: no checkpoint is kept at step {step}. {remedy}.")


def _kept_steps(config: FinetuneConfig) -> list[int]:
    """The steps of which the fine-tuning will leave a checkpoint, that of the base model aside."""
    if config.pretrained is not None:
        return [step for step in pretrained_folders(config.pretrained, config.steps) if step > 0]
    kept = sorted({*range(0, config.steps + 1, config.checkpoint_every), config.steps} - {0})
    return kept if config.checkpoints_kept is None else kept[-config.checkpoints_kept :]


def _check_optimizers(config: TrainingConfig) -> None:
    """Packages must be installed where a stage that runs needs them."""
    if config.finetune_dreambooth.pretrained is None:
        require_optimizer(config.finetune_dreambooth.optimizer, "finetune_dreambooth")
    if config.recipe.multiview:
        require_optimizer(config.finetune_multiview.optimizer, "finetune_multiview")
