"""DreamBooth: teach a text-to-image model one subject from a few photos, with prior preservation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, TrainerConfig
from dreambooth3d.diffusion.finetuning.backgrounds import with_random_backgrounds
from dreambooth3d.diffusion.finetuning.class_images import class_images
from dreambooth3d.diffusion.finetuning.training import (
    ImageGroup,
    OnCheckpoint,
    Trainer,
    TrainingResult,
    TrainingSettings,
    require_optimizer,
)
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.model.pretrained import import_checkpoints, pretrained_folders
from dreambooth3d.diffusion.sampling.text_to_image import BATCH_SIZE, sample
from dreambooth3d.images import sheet
from dreambooth3d.parallel import Team, team
from dreambooth3d.prompts import view_prompt, view_prompts
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

BACKGROUND_COPIES = 8
SAMPLES_PER_VIEW = 2


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
        return _take_pretrained(photos, base_model, config, seed, runtime)
    require_optimizer(config.optimizer, runtime.log.name)
    groups = _finetuning_groups(photos, base_model, config, seed, runtime)
    components = load_components(
        base_model, runtime.device, trainable=True, dtype=trained_dtype(config, runtime.device)
    )
    settings = TrainingSettings.from_config(config)

    def draw_samples(step: int) -> Tensor | None:
        if not config.sample_every_checkpoint:
            return None
        return _sample_grid(components, photos, config, seed)

    result = _train(components, groups, settings, seed, runtime, config.processes, draw_samples)
    _report(result, runtime)
    checkpoints = {checkpoint.step: checkpoint for checkpoint in result.checkpoints.values()}
    return CheckpointSet(checkpoints, base_model, runtime.log.record())


def _finetuning_groups(
    photos: SubjectPhotos, base_model: BaseModelRef, config: FinetuneConfig, seed: int, runtime: Runtime
) -> list[ImageGroup]:
    """Photos and class images as latents, by a frozen model: on a GPU in half precision, and gone before training."""
    frozen = load_components(base_model, runtime.device)
    frozen.require_known_words(photos.class_noun, photos.identifier)
    groups = [_photo_group("instance", frozen, photos, config, config.batch_size, 1.0, seed)]
    if config.prior_weight > 0:
        groups.append(_class_group(frozen, photos, config, seed, runtime))
    return groups


def _sample_grid(components: Components, photos: SubjectPhotos, config: TrainerConfig, seed: int) -> Tensor:
    scale, steps = config.sample_guidance_scale, config.sample_inference_steps
    return sample_grid(components, photos, scale, steps, seed, config.sample_batch_size)


def _train(
    components: Components,
    groups: list[ImageGroup],
    settings: TrainingSettings,
    seed: int,
    runtime: Runtime,
    processes: int,
    draw_samples: OnCheckpoint = lambda step: None,
) -> TrainingResult:
    """Train, alone or with other processes that have models of their own."""
    portable = [dataclasses.replace(group, latents=group.latents.cpu()) for group in groups if processes > 1]
    same = (components.base, components.checkpoint, components.dtype, settings, seed)
    with team(help_training, (*same, portable, runtime.log.name, runtime.folder), processes, runtime.device) as members:
        return Trainer(components, groups, settings, seed, runtime, draw_samples, members).run()


def help_training(
    members: Team,
    base: BaseModelRef,
    checkpoint: DreamBoothCheckpoint | None,
    dtype: torch.dtype,
    settings: TrainingSettings,
    seed: int,
    groups: list[ImageGroup],
    name: str,
    folder: Path,
) -> None:
    """What the other processes of a training do."""
    components = load_components(base, members.device, checkpoint, trainable=True, dtype=dtype)
    groups = [dataclasses.replace(group, latents=group.latents.to(members.device)) for group in groups]
    runtime = Runtime(StepLog(name), folder, members.device, progress=False)
    Trainer(components, groups, settings, seed, runtime, team=members).run()


def trained_dtype(config: TrainerConfig, device: torch.device) -> torch.dtype:
    """dtype of the loaded networks: below a LoRA they are frozen, and so need no more precision than autocast has."""
    # accelerate has no float16 on the CPU, and computes there in float32.
    half = {"bf16": torch.bfloat16} | ({"fp16": torch.float16} if device.type == "cuda" else {})
    return half.get(config.mixed_precision, torch.float32) if config.lora_rank else torch.float32


def _take_pretrained(
    photos: SubjectPhotos, base_model: BaseModelRef, config: FinetuneConfig, seed: int, runtime: Runtime
) -> CheckpointSet:
    """The checkpoints of `config.pretrained` in place of training, each with its sample grid."""
    components = load_components(base_model, "cpu", dtype=torch.float32)
    components.require_known_words(photos.class_noun, photos.identifier)
    found = import_checkpoints(pretrained_folders(config.pretrained, config.steps), components, runtime.folder)
    for step, checkpoint in found.items():
        if config.sample_every_checkpoint:
            parts = load_components(base_model, runtime.device, checkpoint)
            runtime.log.image(f"samples/{step:06d}", _sample_grid(parts, photos, config, seed))
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
        photos: the real photos, under the prompt without a view.
        config: how to train.

    Returns:
        The new checkpoint; its step counts on from the partial one's. A LoRA that is trained on top of a LoRA makes one
        LoRA; on top of full weights it is merged into them.

    Raises:
        ConfigError: the optimiser's package is missing.

    Source: DreamBooth3D (Raj et al. 2023), stage 3.
    """
    require_optimizer(config.optimizer, runtime.log.name)
    components = load_components(
        checkpoint.base_model, runtime.device, checkpoint, trainable=True, dtype=trained_dtype(config, runtime.device)
    )
    real = round(config.batch_size * config.real_share)
    counts = {"pseudo": config.batch_size - real, "photo": real}
    share = {name: count / config.batch_size for name, count in counts.items()}
    groups = []
    if counts["pseudo"]:
        latents = components.encode_all(pseudo.images)
        prompts = view_prompts(photos.instance_prompt, pseudo.cameras)
        groups.append(ImageGroup("pseudo", latents, prompts, counts["pseudo"], share["pseudo"]))
    if counts["photo"]:
        groups.append(_photo_group("photo", components, photos, config, counts["photo"], share["photo"], seed))
    settings = TrainingSettings.from_config(config, checkpoint.step)
    result = _train(components, groups, settings, seed, runtime, config.processes)
    _report(result, runtime)
    runtime.log.image("samples", _sample_grid(components, photos, config, seed))
    last = result.checkpoints[max(result.checkpoints)]
    return dataclasses.replace(last, record=runtime.log.record())


def _photo_group(
    name: str,
    components: Components,
    photos: SubjectPhotos,
    config: TrainerConfig,
    count: int,
    weight: float,
    seed: int,
) -> ImageGroup:
    """The real photos under the subject's prompt, and also under their views' prompts where these are known and wanted.

    They are not mirrored: a subject need not be symmetric.
    """
    images, prompts = photos.resized(components.image_size), [photos.instance_prompt] * len(photos.images)
    copies = 1
    if config.background_augmentation:
        images = with_random_backgrounds(images, BACKGROUND_COPIES, torch.Generator().manual_seed(seed))
        copies += BACKGROUND_COPIES
    latents, prompts = components.encode_all(images), prompts * copies
    if config.photo_view_prompts and photos.views:
        latents = latents.repeat(2, 1, 1, 1)
        prompts = prompts + [view_prompt(photos.instance_prompt, word) for word in photos.views] * copies
    return ImageGroup(name, latents, prompts, count, weight)


def _class_group(
    components: Components, photos: SubjectPhotos, config: FinetuneConfig, seed: int, runtime: Runtime
) -> ImageGroup:
    """Class images by the base model itself, under the class prompt, and under view prompts where asked for."""
    kinds = [photos.class_prompt]
    if config.class_view_prompts:
        kinds += [view_prompt(photos.class_prompt, word) for word in VIEW_WORDS]
    prompts = [kinds[index % len(kinds)] for index in range(config.class_images)]
    images = class_images(
        components,
        prompts,
        guidance_scale=config.class_guidance_scale,
        steps=config.class_inference_steps,
        seed=seed,
        batch_size=config.sample_batch_size,
        progress=runtime.progress,
    )
    runtime.log.image("class_images", sheet(images[:16], 8))
    return ImageGroup("prior", components.encode_all(images), prompts, config.batch_size, config.prior_weight)


def sample_grid(
    components: Components,
    photos: SubjectPhotos,
    guidance_scale: float,
    steps: int,
    seed: int,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """uint8 (height, width, 3) sheet of the subject under each view prompt, one column per view word, fixed seed."""
    words = [word for _ in range(SAMPLES_PER_VIEW) for word in VIEW_WORDS]
    prompts = [view_prompt(photos.instance_prompt, word) for word in words]
    training = components.unet.training, components.text_encoder.training
    components.unet.eval(), components.text_encoder.eval()
    images = sample(components, prompts, guidance_scale=guidance_scale, steps=steps, seed=seed, batch_size=batch_size)
    components.unet.train(training[0]), components.text_encoder.train(training[1])
    components.forget_prompts()
    grid = sheet(images, len(VIEW_WORDS))
    return (grid.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def _report(result: TrainingResult, runtime: Runtime) -> None:
    """Final figures of a training."""
    runtime.log.metrics(steps=result.steps_done, checkpoints=len(result.checkpoints))
    runtime.log.params(interrupted=result.interrupted)


def export_pipeline(checkpoint: DreamBoothCheckpoint, folder: Path | str) -> Path:
    """Write a checkpoint as a complete model folder that `StableDiffusionPipeline.from_pretrained` loads."""
    from diffusers import StableDiffusionPipeline

    parts = load_components(checkpoint.base_model, "cpu", checkpoint)
    pipeline = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)
