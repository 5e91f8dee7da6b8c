"""Photos before other backgrounds, so that fine-tuning does not take a backdrop for a part of the subject."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dreambooth3d.masks import background_mask


def with_random_backgrounds(
    images: Float[Tensor, "n 3 height width"], copies: int, generator: torch.Generator
) -> Float[Tensor, "variants 3 height width"]:
    """Each image as it is, and `copies` times before a random colour where its background is smooth.

    Args:
        images: in [0, 1].
        copies: variants per image.
        generator: source of randomness, on the CPU.

    Returns:
        n * (copies + 1) images: all originals, then all first variants, and so on.
    """
    masks = torch.stack([background_mask(image) for image in images]).float()[:, None]
    masks = avg_pool2d(masks, 3, 1, 1, count_include_pad=False) * masks  # a soft edge inside the background
    variants = [images]
    for _ in range(copies):
        colors = torch.rand(len(images), 3, 1, 1, generator=generator).to(images)
        variants.append(images * (1 - masks) + colors * masks)
    return torch.cat(variants)
