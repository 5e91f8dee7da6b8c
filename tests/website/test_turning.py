"""The moving picture of the README: which photos, which views, in which order, and how large it may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from website import turning
from website.pages import ROOT
from website.pictures import RUN, TURNING

PHOTO_COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def pictures() -> list[Image.Image]:
    """Five plain photos beside four views, each brighter than the one before."""
    photos = [Image.new("RGB", (64, 64), colour) for colour in PHOTO_COLOURS]
    return turning.turning(photos, [Image.new("RGB", (32, 32), (level,) * 3) for level in (40, 90, 140, 190)])


def test_photos_stand_beside_each_view_in_turn(tmp_path: Path) -> None:
    turning.write_turning(pictures(), tmp_path / "turning.webp")
    levels, grounds = [], []
    with Image.open(tmp_path / "turning.webp") as moving:
        assert moving.n_frames == 4 and moving.info["loop"] == 0
        for index in range(4):
            moving.seek(index)
            pixels = np.asarray(moving.convert("RGB")).astype(int)
            levels.append(pixels[:, -turning.ASSET_PX :].mean().round())
            grounds.append(pixels[:, : -turning.ASSET_PX])
    np.testing.assert_allclose(levels, [40, 90, 140, 190], atol=3)
    for ground in grounds:
        for colour in PHOTO_COLOURS:
            share = (np.abs(ground - colour).max(-1) < 30).sum() / turning.PHOTO_PX**2
            assert share == pytest.approx(1.0, abs=0.06)


def test_one_that_is_too_large_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turning, "LIMIT_BYTES", 100)
    with pytest.raises(ValueError, match="would have more than"):
        turning.write_turning(pictures(), tmp_path / "turning.webp")
    assert not list(tmp_path.iterdir())


def test_the_readme_shows_it_first() -> None:
    shown = f"({(RUN / TURNING).relative_to(ROOT)})"
    first = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("!["))
    assert first.endswith(shown)
    with Image.open(RUN / TURNING) as moving:
        assert moving.n_frames == 36
    assert (RUN / TURNING).stat().st_size <= turning.LIMIT_BYTES
