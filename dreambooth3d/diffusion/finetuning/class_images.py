"""Images of the subject's class for prior preservation, generated once by the base model and cached by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, initial_noise, sample
from dreambooth3d.faults import gone_if_failed
from dreambooth3d.images import from_pil, to_pil
from dreambooth3d.progress import LoopProgress
from dreambooth3d.runtime import work_root


def cache_folder(components: Components, prompts: Sequence[str], sampling: Sampling) -> Path:
    """Where these class images are cached; the name follows from everything that they depend on."""
    base = components.base
    identity = base.digest or [base.path, base.revision, base.variant]
    inputs = [identity, list(prompts), sampling.guidance_scale, sampling.steps, sampling.seed]
    if sampling.negative_prompt:
        inputs.append(sampling.negative_prompt)
    return work_root() / "class_images" / hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def class_images(
    components: Components, prompts: Sequence[str], sampling: Sampling, *, progress: bool = False
) -> Float[Tensor, "n 3 height width"]:
    """One image per prompt by the unchanged base model, from the cache where it is there.

    Each image is one file, written atomically, so that an interrupted run goes on where it stopped.

    Args:
        components: the base model, before any fine-tuning.
        prompts: n prompts.
        sampling: how to draw.
        progress: show a progress bar.

    Returns:
        Images in [0, 1] on the CPU.
    """
    folder = cache_folder(components, prompts, sampling)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.png" for index in range(len(prompts))]
    missing = [index for index, file in enumerate(files) if not _readable(file)]
    noise = initial_noise(components, len(prompts), sampling.seed)
    with LoopProgress(len(missing), "class images", unit="image", shown=progress and bool(missing)) as bar:
        for start in range(0, len(missing), sampling.batch_size):
            chosen = missing[start : start + sampling.batch_size]
            images = sample(components, [prompts[index] for index in chosen], sampling, noise[chosen])
            for index, image in zip(chosen, images, strict=True):
                _write(image, files[index])
            bar.update(len(chosen))
    return torch.stack([from_pil(Image.open(file)) for file in files])


def _readable(file: Path) -> bool:
    """Whether a cached image is there and whole; a broken one is removed, to be made again."""
    if not file.exists():
        return False
    try:
        with Image.open(file) as image:
            image.verify()
        return True
    except (UnidentifiedImageError, OSError, SyntaxError):
        file.unlink()
        return False


def _write(image: Tensor, file: Path) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    with gone_if_failed(partial):
        to_pil(image).save(partial, format="PNG")
        partial.replace(file)
