"""DreamBooth: teach a text-to-image model one subject from a few photos, with prior preservation."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig
from dreambooth3d.diffusion.finetuning.image_groups import finetuning_groups, multiview_groups
from dreambooth3d.diffusion.finetuning.optimizers import require_optimizer
from dreambooth3d.diffusion.finetuning.plan import CheckpointSchedule, TrainingPlan, TrainingResult
from dreambooth3d.diffusion.finetuning.precision import trained_dtype
from dreambooth3d.diffusion.finetuning.samples import sample_grid
from dreambooth3d.diffusion.finetuning.shared_training import train
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.diffusion.model.pretrained import import_checkpoints, pretrained_folders
from dreambooth3d.runtime import Runtime


def finetune(
    photos: SubjectPhotos, base_model: BaseModelRef, config: FinetuneConfig, seed: int, runtime: Runtime
) -> CheckpointSet:
    """Fine-tune UNet and text encoder on the subject's photos, keeping a checkpoint every so many steps.

    Args:
        photos: the subject.
        base_model: where to start.
        config: how to train.
        seed: of everything random.
        runtime: an earlier, interrupted run in the same work folder is continued.

    Returns:
        Checkpoints by step, the base model's own weights as step 0 included; or those that `config.pretrained` names.

    Raises:
        BaseModelError: the base model is missing or damaged, or does not know the class noun; a pretrained checkpoint
            is missing or does not fit it.
        ConfigError: the optimiser's package is missing.
        DreamBooth3DError: training diverged.

    Source: DreamBooth (Ruiz et al. 2022).
    """
    if config.pretrained is not None:
        return _take_pretrained(photos, base_model, config, config.pretrained, seed, runtime)
    require_optimizer(config.optimizer, runtime.log.name)
    groups = finetuning_groups(photos, base_model, config, seed, runtime)
    components = load_components(
        base_model, runtime.device, trainable=True, dtype=trained_dtype(config, runtime.device)
    )

    def draw_samples(_step: int) -> Tensor | None:
        return sample_grid(components, photos, config, seed) if config.sample_every_checkpoint else None

    schedule = CheckpointSchedule(every=config.checkpoint_every, kept=config.checkpoints_kept)
    result = train(components, TrainingPlan(groups, config, seed, schedule), runtime, draw_samples)
    _report(result, runtime)
    checkpoints = {checkpoint.step: checkpoint for checkpoint in result.checkpoints.values()}
    return CheckpointSet(checkpoints, base_model, runtime.log.record())


def _take_pretrained(
    photos: SubjectPhotos,
    base_model: BaseModelRef,
    config: FinetuneConfig,
    folder: str,
    seed: int,
    runtime: Runtime,
) -> CheckpointSet:
    """The checkpoints of a folder in place of training, each with its sample grid."""
    components = load_components(base_model, "cpu", dtype=torch.float32)
    components.require_known_words(photos.class_noun, photos.identifier)
    found = import_checkpoints(pretrained_folders(folder, config.steps), components, runtime.folder)
    for step, checkpoint in found.items():
        if config.sample_every_checkpoint:
            parts = load_components(base_model, runtime.device, checkpoint)
            runtime.log.image(f"samples/{step:06d}", sample_grid(parts, photos, config, seed))
    runtime.log.metrics(steps=0, checkpoints=len(found))
    return CheckpointSet(found, base_model, runtime.log.record())


def finetune_multiview(
    checkpoint: DreamBoothCheckpoint,
    pseudo: PseudoViews,
    photos: SubjectPhotos,
    config: MultiviewConfig,
    seed: int,
    runtime: Runtime,
) -> DreamBoothCheckpoint:
    """Continue the partial checkpoint on pseudo views, under their view prompts, and real photos together.

    Args:
        checkpoint: the partial checkpoint.
        pseudo: views of the subject with their cameras.
        photos: the real photos, under the subject's prompt, and also under their views' where `photo_view_prompts` asks
            for it.
        config: how to train.
        seed: of everything random.
        runtime: an earlier, interrupted run in the same work folder is continued.

    Returns:
        The new checkpoint; its step counts on from the partial one's. A LoRA that is trained on top of a LoRA makes one
        LoRA; on top of full weights it is merged into them.

    Raises:
        BaseModelError: the base model is missing or damaged, or the checkpoint does not fit it.
        ConfigError: the optimiser's package is missing.
        DreamBooth3DError: training diverged.

    Source: DreamBooth3D (Raj et al. 2023), stage 3.
    """
    require_optimizer(config.optimizer, runtime.log.name)
    components = load_components(
        checkpoint.base_model, runtime.device, checkpoint, trainable=True, dtype=trained_dtype(config, runtime.device)
    )
    groups = multiview_groups(components, pseudo, photos, config, seed)
    plan = TrainingPlan(groups, config, seed, CheckpointSchedule(first_step=checkpoint.step))
    result = train(components, plan, runtime)
    _report(result, runtime)
    runtime.log.image("samples", sample_grid(components, photos, config, seed))
    last = result.checkpoints[max(result.checkpoints)]
    return dataclasses.replace(last, record=runtime.log.record())


def _report(result: TrainingResult, runtime: Runtime) -> None:
    """Final figures of a training."""
    runtime.log.metrics(steps=result.steps_done, checkpoints=len(result.checkpoints))
    runtime.log.params(interrupted=result.interrupted)
