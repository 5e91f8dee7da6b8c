"""Images as tensors: reading, writing, sheets. Images are RGB float (3, height, width) in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor


def to_pil(image: Float[Tensor, "3 height width"] | UInt8[Tensor, "height width 3"]) -> Image.Image:
    """A PIL image of a float (3, height, width) image in [0, 1] or a uint8 (height, width, 3) one."""
    if image.dtype != torch.uint8:
        image = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(image.cpu().numpy())


def from_pil(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """Float (3, height, width) in [0, 1] of a PIL image."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def antialiased(images: Float[Tensor, "n 3 height width"], size: int) -> Float[Tensor, "n 3 {size} {size}"]:
    """Images (n, 3, height, width) at (n, 3, size, size)."""
    return torch.nn.functional.interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    ).clamp(0, 1)


def save_image(image: Float[Tensor, "3 height width"] | UInt8[Tensor, "height width 3"], path: Path | str) -> None:
    """Write one image; the format follows the suffix."""
    to_pil(image).save(path)


def sheet(
    images: Float[Tensor, "n 3 height width"], columns: int, gap: int = 2, scale: int = 1
) -> Float[Tensor, "3 sheet_height sheet_width"]:
    """Lay images out on white.

    Args:
        images: (n, 3, height, width) in [0, 1].
        columns: images per row.
        gap: white pixels between images.
        scale: integer enlargement by nearest neighbour.

    Returns:
        (3, rows * (height * scale + gap) + gap, columns * (width * scale + gap) + gap).
    """
    images = images.detach().float().cpu().clamp(0, 1)
    if scale > 1:
        images = images.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    count, _, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.ones(3, rows * (height + gap) + gap, columns * (width + gap) + gap)
    for index in range(count):
        top, left = (index // columns) * (height + gap) + gap, (index % columns) * (width + gap) + gap
        canvas[:, top : top + height, left : left + width] = images[index]
    return canvas
