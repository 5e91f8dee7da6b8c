"""What makes the photo check fast changes nothing in what it says, and it imports no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch.nn.functional import avg_pool2d, pad

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.photos.masks import choose, color_models
from dreambooth3d.photos.masks.choose import choose_masks
from dreambooth3d.photos.masks.source import PhotoMask, SourcePhoto
from dreambooth3d.photos.quality import _nearest
from dreambooth3d.places import repository

_SAID = """
import sys
from dreambooth3d.cli.main import app
try:
    app(["photos", "check", sys.argv[1], "--class-noun", "ball"])
except SystemExit:
    pass
print(*sorted(name for name in ("torch", "zenml", "mlflow", "operations.launch.checking") if name in sys.modules))
"""


def write_balls(folder: Path, count: int, masks: bool, noise: bool = True) -> Path:
    """Photos of a ball before noise, or before one colour, each with a mask if asked for."""
    folder.mkdir()
    y, x = np.mgrid[:96, :96]
    for index in range(count):
        random = np.random.default_rng(index)
        ball = (y - random.integers(40, 56)) ** 2 + (x - random.integers(40, 56)) ** 2 < 500
        pixels = random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        pixels[:] = pixels if noise else 180
        pixels[ball] = (200, 40, 30)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
        if masks:
            Image.fromarray((ball * 255).astype(np.uint8)).save(folder / f"{index:03}_mask.png")
    return folder


@pytest.mark.parametrize(
    "count, masks, noise, said",
    [
        (300, False, True, "300 photos, at most 20 are allowed"),
        (4, True, True, "usable as targets: 4 of 4"),
        (4, False, False, "usable as targets: 4 of 4"),
    ],
)
def test_what_needs_no_network_imports_no_torch(
    count: int, masks: bool, noise: bool, said: str, tmp_path: Path
) -> None:
    folder = write_balls(tmp_path / "balls", count, masks, noise)
    result = subprocess.run(
        [sys.executable, "-c", _SAID, str(folder)], capture_output=True, text=True, check=True, cwd=repository()
    )
    assert said in result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == ""


class Counting:
    """A network that counts how often it is asked, and sees everything everywhere."""

    def __init__(self) -> None:
        self.asked = 0

    def masks(self, photos: list[SourcePhoto]) -> list[PhotoMask | None]:
        self.asked += 1
        return [PhotoMask(np.full(photo.pixels.shape[:2], 255, np.uint8), 0.8, trusted=True) for photo in photos]


@pytest.mark.parametrize("cluttered, asked", [(0, 0), (1, 1)])
def test_network_is_asked_only_where_its_answer_counts(
    cluttered: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = np.full((96, 96, 3), 150, np.uint8)
    plain[30:66, 30:66] = (200, 40, 30)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    photos = [SourcePhoto(Path(f"{index}.png"), noise if index < cluttered else plain) for index in range(3)]
    network = Counting()
    monkeypatch.setattr(choose, "_network", lambda *_: network)
    chosen = choose_masks(photos, PhotosConfig(), PhotoModels(learned="sha256:0"))
    assert network.asked == asked
    assert [each.source for each in chosen][cluttered:] == ["smooth_background"] * (3 - cluttered)
    assert [each.source for each in chosen][:cluttered] == ["learned"] * cluttered


def test_window_means_are_those_of_pooling() -> None:
    values, size = torch.rand(6, 70, 50, generator=torch.Generator().manual_seed(0)), 2 * color_models.RADIUS + 1
    padded = pad(values[None], (color_models.RADIUS,) * 4, mode="reflect")
    expected = avg_pool2d(avg_pool2d(padded, (size, 1), 1), (1, size), 1)[0]
    assert torch.equal(color_models._window(values), expected)


def test_nearest_colours_are_those_of_norms() -> None:
    random = np.random.default_rng(0)
    lab, colours = rgb2lab(random.integers(0, 256, (40, 30, 3), dtype=np.uint8)), random.normal(size=(4, 3)) * 40
    expected = np.linalg.norm(lab[:, :, None] - colours, axis=-1).min(-1)
    assert np.array_equal(_nearest(lab, colours), expected)
