"""A second check of the same photos says the same without the network; whatever else is kept is not believed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreambooth3d.photos.masks import kept
from dreambooth3d.photos.masks.kept import ENDING, KeptMasks
from dreambooth3d.photos.masks.source import PhotoMask, SourcePhoto
from dreambooth3d.places import repository
from tests.photos.test_check_speed import _SAID, write_balls

WEIGHTS = "sha256:0"


class Bright:
    """A network that counts how often it is asked: the subject is what is bright, and unseen where nothing is."""

    name = "learned"

    def __init__(self) -> None:
        self.asked = 0

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        self.asked += 1
        means = [photo.pixels.mean(-1).astype(np.uint8) for photo in photos]
        return [PhotoMask(mean, mean.mean() / 300, bool(mean.mean() > 130)) if mean.any() else None for mean in means]


@pytest.fixture
def photos() -> list[SourcePhoto]:
    """Three of different sizes; nothing is seen in the second one."""
    random = np.random.default_rng(0)
    found = [random.integers(0, 256, (40 + row, 50, 3), dtype=np.uint8) for row in range(3)]
    found[1][:] = 0
    return [SourcePhoto(Path(f"{index}.png"), pixels) for index, pixels in enumerate(found)]


def same(found: Sequence[PhotoMask | None], others: Sequence[PhotoMask | None]) -> bool:
    """To the last digit."""
    return all(
        (one is None and other is None)
        or (one is not None and other is not None and np.array_equal(one.mask, other.mask)
            and (one.confidence, one.trusted) == (other.confidence, other.trusted))
        for one, other in zip(found, others, strict=True)
    )  # fmt: skip


def test_the_same_photos_get_the_same_masks_without_the_network(photos: list[SourcePhoto], tmp_path: Path) -> None:
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")
    first = masks.of(network, WEIGHTS, photos)
    assert network.asked == 1 and first[1] is None and same(first, Bright().masks(photos))
    elsewhere = [replace(photo, path=Path("elsewhere") / photo.path) for photo in photos]
    assert same(masks.of(network, WEIGHTS, elsewhere), first) and network.asked == 1
    assert stat.S_IMODE((tmp_path / "masks").stat().st_mode) == 0o700


def other_pixel(masks: KeptMasks, photos: list[SourcePhoto]) -> tuple[KeptMasks, str, list[SourcePhoto]]:
    pixels = photos[2].pixels.copy()
    pixels[3, 4, 1] ^= 1
    return masks, WEIGHTS, [*photos[:2], replace(photos[2], pixels=pixels)]


def other_shape(masks: KeptMasks, photos: list[SourcePhoto]) -> tuple[KeptMasks, str, list[SourcePhoto]]:
    return masks, WEIGHTS, [replace(photos[0], pixels=photos[0].pixels.reshape(50, 40, 3)), *photos[1:]]


@pytest.mark.parametrize(
    "changed",
    [
        other_pixel,
        other_shape,
        lambda masks, photos: (masks, WEIGHTS, photos[:2]),
        lambda masks, photos: (masks, WEIGHTS, photos[::-1]),
        lambda masks, photos: (masks, "sha256:1", photos),
        lambda masks, photos: (replace(masks, code="other code"), WEIGHTS, photos),
    ],
)
def test_the_network_is_asked_where_anything_is_another(
    changed: Callable[..., tuple[KeptMasks, str, list[SourcePhoto]]], photos: list[SourcePhoto], tmp_path: Path
) -> None:
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")
    masks.of(network, WEIGHTS, photos)
    masks, weights, others = changed(masks, photos)
    assert same(masks.of(network, weights, others), Bright().masks(others)) and network.asked == 2


def test_another_release_of_torch_asks_again(
    photos: list[SourcePhoto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")
    masks.of(network, WEIGHTS, photos)
    monkeypatch.setattr(kept, "version", lambda name: "99.0")
    masks.of(network, WEIGHTS, photos)
    assert network.asked == 2


def flipped(content: bytes) -> bytes:
    """One bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-7], lambda content: b"", lambda content: b"\n"])
def test_a_damaged_file_is_found_again(
    damage: Callable[[bytes], bytes], photos: list[SourcePhoto], tmp_path: Path
) -> None:
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")
    masks.of(network, WEIGHTS, photos)
    (file,) = masks.folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(masks.of(network, WEIGHTS, photos), Bright().masks(photos)) and network.asked == 2
    assert file.read_bytes() == whole, "mended"


def test_another_sets_masks_are_not_taken_for_this_ones(photos: list[SourcePhoto], tmp_path: Path) -> None:
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")
    masks.of(network, WEIGHTS, photos)
    (own,) = masks.folder.iterdir()
    masks.of(network, WEIGHTS, photos[::-1])
    (other,) = set(masks.folder.iterdir()) - {own}
    own.write_bytes(other.read_bytes())
    assert same(masks.of(network, WEIGHTS, photos), Bright().masks(photos)) and network.asked == 3


def test_a_folder_that_others_may_write_is_left_alone(photos: list[SourcePhoto], tmp_path: Path) -> None:
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")
    masks.of(network, WEIGHTS, photos)
    masks.folder.chmod(0o770)
    masks.of(network, WEIGHTS, photos[:2])
    assert len(list(masks.folder.iterdir())) == 1, "nothing is written"
    masks.of(network, WEIGHTS, photos)
    assert network.asked == 3, "and nothing is read"


def test_where_nothing_can_be_kept_the_network_answers(photos: list[SourcePhoto], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    network = Bright()
    assert same(KeptMasks(tmp_path / "file" / "masks", "code").of(network, WEIGHTS, photos), Bright().masks(photos))


def test_what_is_not_used_for_long_goes(
    photos: list[SourcePhoto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_SETS", 3)
    network, masks = Bright(), KeptMasks(tmp_path / "masks", "code")

    def age(file: Path, days: float) -> Path:
        os.utime(file, (time.time() - days * 86400,) * 2)
        return file

    masks.of(network, WEIGHTS, photos)
    (first,) = (age(file, 89) for file in masks.folder.iterdir())
    masks.of(network, "1", photos)
    (second,) = {age(file, 1) for file in masks.folder.iterdir() if file != first}
    age(first, 89)
    masks.of(network, "2", photos)
    assert {first, second} < set(masks.folder.iterdir())
    masks.of(network, WEIGHTS, photos)  # in use again
    masks.of(network, "3", photos)
    assert first.exists() and not second.exists() and len(list(masks.folder.iterdir())) == 3
    age(first, 91)
    masks.of(network, "4", photos)
    assert not first.exists()
    assert {file.suffix for file in masks.folder.iterdir()} == {ENDING}


def test_the_command_imports_torch_for_the_first_check_only(tmp_path: Path) -> None:
    folder = write_balls(tmp_path / "balls", 4, masks=False)
    home = {"DREAMBOOTH3D_HOME": str(tmp_path / "home")}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", _SAID, str(folder)],
            capture_output=True, text=True, check=True, cwd=repository(), env=os.environ | home,
        ).stdout.splitlines()
        for _ in range(2)
    )  # fmt: skip
    assert "learned" in "".join(first) and first[:-1] == second[:-1]
    assert (first[-1], second[-1]) == ("torch", "")
