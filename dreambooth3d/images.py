"""Images as tensors: reading, writing, sheets. Images are RGB float (3, height, width) in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CAPTIONED_PX, STRIP_PX, CAPTION_PX = 96, 16, 11
"""Least width of a picture with a caption, height of the caption's strip, size of its letters, in pixels."""


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


def captioned(
    images: Float[Tensor, "n 3 height width"], captions: Sequence[str]
) -> Float[Tensor, "n 3 captioned_height captioned_width"]:
    """Images with a strip of text above each, which covers none of their pixels.

    Args:
        images: (n, 3, height, width) in [0, 1]; small ones are enlarged by whole pixels, so that the text can be read.
        captions: one each; what does not fit is cut off.

    Returns:
        (n, 3, strip + height * k, width * k) in [0, 1], on the CPU.
    """
    images = images.detach().float().cpu().clamp(0, 1)
    scale = max(1, -(-CAPTIONED_PX // images.shape[-1]))
    images = images.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    font = ImageFont.load_default(CAPTION_PX)
    strips = []
    for caption in captions:
        strip = Image.new("RGB", (images.shape[-1], STRIP_PX), "white")
        ImageDraw.Draw(strip).text((2, STRIP_PX / 2), caption, fill="#111827", font=font, anchor="lm")
        strips.append(from_pil(strip))
    return torch.cat([torch.stack(strips), images], dim=-2)


def degrees(angle: float) -> str:
    """An angle as a caption says it: in whole degrees, above -180 and up to 180."""
    return f"{180 - round(180 - angle) % 360}\u00b0"


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
