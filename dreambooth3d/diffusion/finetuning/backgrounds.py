"""Photos before other backgrounds, so that fine-tuning does not take what lies behind a subject for a part of it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.images import antialiased
from dreambooth3d.masks import background_mask

OCTAVES = (2, 4, 8, 16, 32)
"""Cells per side of the random grids that make a texture."""


def with_random_backgrounds(
    photos: SubjectPhotos,
    size: int,
    copies: int,
    share: float,
    chosen: Bool[Tensor, " n"],
    generator: torch.Generator,
) -> Float[Tensor, "variants 3 {size} {size}"]:
    """Each photo as it is, and `copies` times, of which a share before other backgrounds.

    A smooth background becomes another plain colour. Where a mask tells the subject from any other, a plain colour, a
    gradient or a texture takes its place.

    Args:
        photos: n photos with masks.
        size: pixels per side of the result.
        copies: variants per photo beside the original.
        share: of all variants, the originals among them, that have another background.
        chosen: (n,) the photos whose background is replaced.
        generator: source of randomness, on the CPU.

    Returns:
        n * (copies + 1) images: all originals, then all first variants, and so on.
    """
    images, smooth = photos.resized(size), photos.before_smooth_background
    backdrop = torch.stack([background_mask(image) for image in images]).float()[:, None]
    backdrop = avg_pool2d(backdrop, 3, 1, 1, count_include_pad=False) * backdrop  # a soft edge inside the background
    cut_out, opacity = _cut_out(photos, size)
    others = torch.Generator().manual_seed(generator.initial_seed() + 1)
    variants, replaced = [images], round(share * (copies + 1))
    for index in range(copies):
        colors = torch.rand(len(images), 3, 1, 1, generator=generator).to(images)
        recolored = images * (1 - backdrop) + colors * backdrop
        behind = random_backgrounds(len(images), size, others).to(images)
        variant = torch.where(smooth[:, None, None, None], recolored, cut_out + (1 - opacity) * behind)
        variants.append(torch.where(chosen[:, None, None, None], variant, images) if index < replaced else images)
    return torch.cat(variants)


def _cut_out(photos: SubjectPhotos, size: int) -> tuple[Tensor, Tensor]:
    """Subjects before black (n, 3, size, size), and their opacity (n, 1, size, size), cut out at the photos' size."""
    if not photos.masks:
        return photos.resized(size), torch.ones(len(photos.images), 1, size, size)
    pairs = list(zip(photos.images, photos.masks, strict=True))
    subjects = [antialiased((image * mask)[None], size) for image, mask in pairs]
    opacity = [antialiased(mask.expand(1, 3, -1, -1), size)[:, :1] for _, mask in pairs]
    return torch.cat(subjects), torch.cat(opacity)


def random_backgrounds(count: int, size: int, generator: torch.Generator) -> Float[Tensor, "{count} 3 {size} {size}"]:
    """Plain colours, gradients between four corners, and textures of noise, each kind as often."""

    def smooth_noise(cells: int) -> Tensor:
        grid = torch.rand(1, 3, cells, cells, generator=generator)
        return interpolate(grid, size=(size, size), mode="bilinear", align_corners=True)[0]

    backgrounds = []
    for kind in torch.randint(3, (count,), generator=generator).tolist():
        if kind == 0:
            backgrounds.append(torch.rand(3, 1, 1, generator=generator).expand(3, size, size))
        elif kind == 1:
            backgrounds.append(smooth_noise(2))
        else:
            weights = torch.rand(len(OCTAVES), generator=generator)
            layers = [weight * smooth_noise(cells) for weight, cells in zip(weights, OCTAVES, strict=True)]
            texture = torch.stack(layers).sum(dim=0)
            low, high = texture.amin(), texture.amax()
            contrast, level = torch.rand(2, generator=generator)
            spread = (texture - low) / (high - low).clamp(min=1e-6)
            backgrounds.append((level * (1 - contrast) + contrast * spread).clamp(0, 1))
    return torch.stack(backgrounds)
