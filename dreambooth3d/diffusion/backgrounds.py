"""Photos before other backgrounds, so that fine-tuning does not take a backdrop for a part of the subject."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d


def background_mask(image: Tensor, tolerance: float = 0.1, min_border_share: float = 0.6) -> Tensor:
    """Where a near-uniform background lies: pixels like the border's median colour that connect to the border.

    Args:
        image: (3, height, width) in [0, 1].
        tolerance: largest difference from that colour in any channel.
        min_border_share: with fewer border pixels of that colour, the background is not uniform and nothing is masked.

    Returns:
        (height, width) bool.
    """
    height, width = image.shape[-2:]
    edge = torch.zeros(height, width, dtype=torch.bool, device=image.device)
    edge[[0, -1], :] = True
    edge[:, [0, -1]] = True
    color = image[:, edge].median(dim=1).values
    alike = (image - color[:, None, None]).abs().amax(0) <= tolerance
    if alike[edge].float().mean() < min_border_share:
        return torch.zeros_like(edge)
    filled, previous = alike & edge, -1
    while (count := int(filled.sum())) != previous:
        previous = count
        # Several growth steps per check; a step reaches one pixel further inside the like-coloured region.
        for _ in range(16):
            filled = (max_pool2d(filled[None, None].float(), 3, 1, 1)[0, 0] > 0) & alike
    return filled


def with_random_backgrounds(images: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Each image as it is, and `copies` times before a random colour where its background is near-uniform.

    Args:
        images: (n, 3, height, width) in [0, 1].
        copies: variants per image.
        generator: source of randomness, on the CPU.

    Returns:
        (n * (copies + 1), 3, height, width): all originals, then all first variants, and so on.
    """
    masks = torch.stack([background_mask(image) for image in images]).float()[:, None]
    masks = avg_pool2d(masks, 3, 1, 1, count_include_pad=False) * masks  # a soft edge inside the background
    variants = [images]
    for _ in range(copies):
        colors = torch.rand(len(images), 3, 1, 1, generator=generator).to(images)
        variants.append(images * (1 - masks) + colors * masks)
    return torch.cat(variants)
