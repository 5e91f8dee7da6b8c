"""What DreamBooth trains on: photos, class images and pseudo views as latents under their prompts."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreambooth3d.artifacts import BaseModelRef, PseudoViews, SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, TrainerConfig
from dreambooth3d.diffusion.finetuning.backgrounds import with_random_backgrounds
from dreambooth3d.diffusion.finetuning.class_images import class_images
from dreambooth3d.diffusion.finetuning.plan import ImageGroup
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.sampling.text_to_image import Sampling
from dreambooth3d.images import sheet
from dreambooth3d.prompts import view_prompt, view_prompts
from dreambooth3d.runtime import Runtime

BACKGROUND_COPIES = 8


def finetuning_groups(
    photos: SubjectPhotos, base_model: BaseModelRef, config: FinetuneConfig, seed: int, runtime: Runtime
) -> tuple[ImageGroup, ...]:
    """Photos and class images as latents, by a frozen model: on a GPU in half precision, and gone before training.

    Raises:
        BaseModelError: the base model does not know the class noun.
    """
    frozen = load_components(base_model, runtime.device)
    frozen.require_known_words(photos.class_noun, photos.identifier)
    instance = photo_group(frozen, photos, config, seed, name="instance", count=config.batch_size, weight=1.0)
    if config.prior_weight == 0:
        return (instance,)
    return instance, class_group(frozen, photos, config, seed, runtime)


def multiview_groups(
    components: Components, pseudo: PseudoViews, photos: SubjectPhotos, config: MultiviewConfig, seed: int
) -> tuple[ImageGroup, ...]:
    """Pseudo views under their view prompts and real photos, whose weights are their shares of the batch."""
    real = round(config.batch_size * config.real_share)
    made = config.batch_size - real
    groups = []
    if made:
        latents = components.encode_all(pseudo.images)
        prompts = view_prompts(photos.instance_prompt, pseudo.cameras)
        groups.append(ImageGroup("pseudo", latents, prompts, made, made / config.batch_size))
    if real:
        weight = real / config.batch_size
        groups.append(photo_group(components, photos, config, seed, name="photo", count=real, weight=weight))
    return tuple(groups)


def photo_group(
    components: Components,
    photos: SubjectPhotos,
    config: TrainerConfig,
    seed: int,
    *,
    name: str,
    count: int,
    weight: float,
) -> ImageGroup:
    """The photos under the subject's prompt or their captions, and, where known and wanted, under their views' too.

    They are not mirrored: a subject need not be symmetric.

    Args:
        components: encode the photos.
        photos: the subject.
        config: says which variants of the photos and prompts there are.
        seed: of random backgrounds.
        name, count, weight: of the group.
    """
    size, captions = components.image_size, photos.prompts
    images, prompts, copies = photos.resized(size), list(captions), 1
    chosen = _before_other_backgrounds(photos, config)
    if config.background_augmentation or chosen.any():
        generator = torch.Generator().manual_seed(seed)
        images = with_random_backgrounds(photos, size, BACKGROUND_COPIES, config.background_share, chosen, generator)
        copies += BACKGROUND_COPIES
    latents, prompts = components.encode_all(images), prompts * copies
    weights = _loss_weights(photos, latents.shape[-1], config)
    weights = None if weights is None else weights.repeat(copies, 1, 1, 1).to(latents)
    if config.photo_view_prompts and photos.views:
        latents = latents.repeat(2, 1, 1, 1)
        weights = None if weights is None else weights.repeat(2, 1, 1, 1)
        views = [view_prompt(caption, word) for caption, word in zip(captions, photos.views, strict=True)]
        prompts = prompts + views * copies
    return ImageGroup(name, latents, prompts, count, weight, weights)


def _before_other_backgrounds(photos: SubjectPhotos, config: TrainerConfig) -> Bool[Tensor, " n"]:
    """(n,) the photos that are trained on before other backgrounds as well."""
    wanted = config.background_augmentation
    if wanted is None:
        return photos.trusted & ~photos.before_smooth_background
    return photos.trusted & torch.tensor(wanted)


def _loss_weights(photos: SubjectPhotos, size: int, config: TrainerConfig) -> Float[Tensor, "n 1 {size} {size}"] | None:
    """(n, 1, size, size) weights of the loss: less where trusted masks show no subject; None where all are 1.

    Smooth backgrounds keep theirs: nothing that could be taken for the subject is there.
    """
    masked = photos.trusted & ~photos.before_smooth_background
    if config.loss_outside_mask == 1 or not masked.any():
        return None
    masks = photos.masks_resized(size)
    weights = config.loss_outside_mask + (1 - config.loss_outside_mask) * masks
    return torch.where(masked[:, None, None], weights, 1.0)[:, None]


def class_group(
    components: Components, photos: SubjectPhotos, config: FinetuneConfig, seed: int, runtime: Runtime
) -> ImageGroup:
    """Class images by the base model itself, under the class prompt, and under view prompts where asked for."""
    kinds = [photos.class_prompt]
    if config.class_view_prompts:
        kinds += [view_prompt(photos.class_prompt, word) for word in VIEW_WORDS]
    prompts = [kinds[index % len(kinds)] for index in range(config.class_images)]
    sampling = Sampling(
        config.class_guidance_scale, config.class_inference_steps, seed, batch_size=config.sample_batch_size
    )
    images = class_images(components, prompts, sampling, progress=runtime.progress)
    runtime.log.image("class_images", sheet(images[:16], 8))
    return ImageGroup("prior", components.encode_all(images), prompts, config.batch_size, config.prior_weight)
