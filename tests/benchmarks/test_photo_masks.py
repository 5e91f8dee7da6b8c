"""The benchmark of masks: which folders it takes, and what it says of masks whose overlap is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import photo_masks
from benchmarks.photo_masks import MaskSet, Row, mask_sets, measure
from benchmarks.real.layout import LayoutError
from dreambooth3d.images import STRIP_PX

SIDE = 160


def write_photos(folder: Path, masks: Path | None = None, suffix: str = "", count: int = 3) -> None:
    """A dark disc before white, in another place each time; its masks, where a folder for them is named."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    for index in range(count):
        disc = np.hypot(x - 60 - 15 * index, y - 70) < 30
        rng = np.random.default_rng(index)
        pixels = np.where(disc[..., None], (60 + 30 * index, 40, 90), 255) - rng.integers(0, 4, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            Image.fromarray(disc.astype(np.uint8) * 255).save(masks / f"{index}{suffix}.png")


def test_photo_sets_are_found_in_every_layout_and_depth(tmp_path: Path) -> None:
    write_photos(tmp_path / "all" / "casual" / "cup" / "photos", tmp_path / "all" / "casual" / "cup" / "masks")
    write_photos(tmp_path / "all" / "robot", tmp_path / "all" / "robot", "_mask")
    write_photos(tmp_path / "all" / "dog")
    found = {each.name: each for each in mask_sets(tmp_path / "all")}
    assert {name: (len(each.photos), len(each.true)) for name, each in found.items()} == {
        "cup": (3, 3),
        "robot": (3, 3),
        "dog": (3, 0),
    }
    assert [path.name for path in found["robot"].true] == ["0_mask.png", "1_mask.png", "2_mask.png"]


def test_a_folder_that_cannot_be_measured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path / "robot", tmp_path / "robot", "_mask")
    (tmp_path / "robot" / "1_mask.png").unlink()
    with pytest.raises(LayoutError, match="2 true masks for 3 photos"):
        mask_sets(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="holds no photos"):
        mask_sets(tmp_path / "empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["photo_masks", str(tmp_path / "none")])
        assert photo_masks.main() == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_masks_are_compared_with_the_true_ones_which_the_check_does_not_see(tmp_path: Path) -> None:
    write_photos(tmp_path, tmp_path, "_mask")
    (photos,) = mask_sets(tmp_path)
    row, report = measure(photos, "smooth_background")
    assert set(report.facts["mask_source"]) == {"smooth_background"}, "`files`, had it seen them"
    assert min(row.overlaps) > 0.93 and all(row.trusted)
    turned = MaskSet("turned", photos.photos, [photos.true[1], photos.true[2], photos.true[0]])
    assert max(measure(turned, "smooth_background")[0].overlaps) < 0.7, "the masks of other photos"


def test_the_table_tells_mean_good_and_worst() -> None:
    rows = [Row("one", [0.9, 0.5], [True, False], [0.9, 0.2]), Row("two", [0.8, 1.0], [True, True], [0.8, 0.9])]
    assert rows[0].line().split() == "one 2 1 of 2 0.700 1 of 2 0.50 0.90".split()
    assert Row.all_of("all", rows).line().split() == "all 4 3 of 4 0.800 2 of 4 0.50 0.80".split()
    assert "no true masks; confidence 0.30" in Row("dog", [], [False], [0.3]).line()


def test_a_folder_of_sets_is_printed_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        write_photos(tmp_path / "all" / name, tmp_path / "all" / name, "_mask", count=3 if name == "one" else 4)
    sheet = tmp_path / "sheet.webp"
    arguments = [str(tmp_path / "all"), "--masks", "smooth_background", "--sheet", str(sheet)]
    monkeypatch.setattr("sys.argv", ["photo_masks", *arguments])
    assert photo_masks.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["one", "two", "all"] and "7 of 7" in lines[3]
    with Image.open(sheet) as picture:
        assert picture.width == 4 * 194 + 2 and picture.height == 2 * (196 + STRIP_PX)
