"""Images to PIL and back, and sheets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dreambooth3d.images import captioned, degrees, from_pil, save_image, sheet, to_pil


def test_sheet_lays_out_row_by_row_on_white() -> None:
    images = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 4, 6) / 10
    canvas = sheet(images, columns=3, gap=2)
    assert canvas.shape == (3, 2 * (4 + 2) + 2, 3 * (6 + 2) + 2)
    covered = torch.zeros(canvas.shape[1:], dtype=torch.bool)
    for index in range(5):
        top, left = 2 + (index // 3) * 6, 2 + (index % 3) * 8
        assert torch.equal(canvas[:, top : top + 4, left : left + 6], images[index])
        covered[top : top + 4, left : left + 6] = True
    assert (canvas[:, ~covered] == 1).all()


def test_sheet_enlarges_by_whole_pixels() -> None:
    image = torch.rand(1, 3, 2, 3)
    canvas = sheet(image, columns=1, gap=1, scale=3)
    assert canvas.shape == (3, 2 * 3 + 2, 3 * 3 + 2)
    for row in range(6):
        for column in range(9):
            assert torch.equal(canvas[:, 1 + row, 1 + column], image[0, :, row // 3, column // 3])


def test_sheet_leaves_its_input_alone_and_clamps() -> None:
    images = torch.full((1, 3, 2, 2), 1.5, requires_grad=True)
    canvas = sheet(images, columns=2, gap=0)
    assert canvas.max() == 1 and not canvas.requires_grad and (images == 1.5).all()
    assert sheet(images.detach().half(), columns=1).dtype == torch.float32


def test_pil_round_trip_keeps_bytes() -> None:
    pixels = torch.randint(256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = to_pil(pixels.float() / 255)
    assert picture.size == (7, 5) and picture.getpixel((6, 2)) == tuple(pixels[:, 2, 6].tolist())
    assert torch.equal((from_pil(picture) * 255).round().to(torch.uint8), pixels)
    assert to_pil(pixels.permute(1, 2, 0).contiguous()).tobytes() == picture.tobytes()
    assert from_pil(Image.new("L", (2, 3), 51)).shape == (3, 3, 2)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_suffix_gives_the_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    save_image(torch.full((3, 8, 8), 0.5), path)
    with Image.open(path) as picture:
        assert picture.format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[suffix]
        assert (from_pil(picture) - 0.5).abs().max() < 0.02


def test_a_caption_covers_nothing_of_a_picture() -> None:
    images = torch.rand(2, 3, 120, 100)
    cells = captioned(images, ["step 100, front", "step 200, front"])
    assert cells.shape == (2, 3, 120 + 16, 100) and torch.equal(cells[:, :, 16:], images)
    strips = cells[:, :, :16]
    assert (strips == 1).float().mean() > 0.5 and (strips < 0.3).any(1).flatten(1).sum(1).min() > 20
    assert not torch.equal(strips[0], strips[1])
    small = captioned(images[:, :, :5, :50], ["a", "b"])
    assert torch.equal(small[:, :, 16::2, ::2], images[:, :, :5, :50]) and small.shape[-1] == 100
    assert captioned(images, ["a caption that is much wider than its picture"] * 2).shape == cells.shape


def test_angles_are_said_from_the_front() -> None:
    said = {0: "0°", 45: "45°", 270: "-90°", 180: "180°", -180: "180°", 359.7: "0°"}
    assert {angle: degrees(angle) for angle in said} == said
