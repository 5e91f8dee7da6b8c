"""Photos that nothing learns from: which they are, what is said of them, and that the others do not notice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.photos.cameras import search
from dreambooth3d.photos.cameras.locate import locate_photos
from dreambooth3d.photos.check import check_photos, inspect_folder
from dreambooth3d.photos.dataset import ground_truth
from dreambooth3d.photos.held_out import evenly_spread
from dreambooth3d.photos.showing import report_lines
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from materializers.hashing import content_hash
from tests.evaluation.stand_ins import ColorScorer
from tests.photos.photo_sets import write_set
from tests.photos.test_given_masks import box


def checked(folder: Path, **settings: object) -> SubjectPhotos:
    runtime = Runtime(StepLog("validate_photos"), folder.parent / "work")
    return check_photos(PhotosConfig(dir=str(folder), **settings), "untracked:0", PhotoModels(), runtime)


def masked_set(folder: Path, count: int = 6) -> Path:
    """Photos with masks beside them."""
    write_set(folder, count)
    for index in range(count):
        box(place=(30 + 2 * index, 40, 120, 130 - 3 * index)).save(folder / f"{index:02d}_mask.png")
    return folder


def test_a_number_of_photos_is_spread_evenly() -> None:
    assert evenly_spread(8, 1) == [4]
    assert evenly_spread(8, 2) == [2, 6]
    assert evenly_spread(5, 2) == [1, 3]
    assert evenly_spread(7, 7) == list(range(7))


def test_held_out_photos_are_apart_and_named(tmp_path: Path) -> None:
    photos = checked(masked_set(tmp_path / "rex"), hold_out=2)
    assert photos.facts["file"].tolist() == ["00.png", "02.png", "03.png", "05.png"]
    assert photos.held_out is not None
    assert photos.held_out.facts["file"].tolist() == ["01.png", "04.png"]
    assert len(photos.images) == len(photos.masks) == 4 and len(photos.held_out.masks) == 2
    whole = checked(tmp_path / "rex")
    assert whole.held_out is None and torch.equal(photos.held_out.images[1], whole.images[4])
    assert torch.equal(photos.held_out.masks[0], whole.masks[1])
    assert photos.record.params["held_out"] == "01.png, 04.png"
    assert photos.record.metrics["photos_held_out"] == 2 and photos.record.metrics["photos_usable_as_targets"] == 4
    lines = report_lines(photos)
    assert "usable as targets: 4 of 4" in lines and "held out: 01.png, 04.png" in lines
    assert whole.record.params["held_out"] == "none"


def test_the_others_are_as_if_held_out_photos_were_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views, cameras and all else that later stages see, to the last bit."""
    small = {"STARTS": 4, "OUTLINE_ROUNDS": ((2, 2, 16, 8, 3.0),), "FIELD_ROUNDS": ((2, 2, 2.0),), "HELD_OUT_STEPS": 2}
    for name, value in small.items():
        monkeypatch.setattr(search, name, value)
    folder = masked_set(tmp_path / "rex")
    without = Path(shutil.copytree(folder, tmp_path / "without" / "rex"))
    for name in ("01.png", "01_mask.png", "04.png", "04_mask.png"):
        (without / name).unlink()
    apart, never = (
        locate_photos(name_photo_views(photos, ColorScorer()))  # type: ignore[arg-type]
        for photos in (checked(folder, hold_out=("01.png", "04.png")), checked(without))
    )
    assert apart.held_out is not None and never.held_out is None
    assert apart.held_out.cameras is None and not apart.held_out.views
    assert content_hash(replace(apart, held_out=None)) == content_hash(never)
    assert content_hash(apart) != content_hash(never), "evaluation depends on them"


def test_networks_for_masks_see_all_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreambooth3d.photos.masks import choose

    seen = []
    original = choose.SmoothBackground.masks
    monkeypatch.setattr(
        choose.SmoothBackground, "masks", lambda self, photos: seen.append(len(photos)) or original(self, photos)
    )
    checked(write_set(tmp_path / "rex", 5), hold_out=2)
    assert seen == [5]


def test_a_held_out_photo_without_a_trusted_mask_is_said(tmp_path: Path) -> None:
    folder = masked_set(tmp_path / "rex")
    (folder / "03_mask.png").unlink()
    noise = torch.randint(0, 256, (160, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    from PIL import Image

    Image.fromarray(noise.numpy()).save(folder / "03.png")
    photos = checked(folder, hold_out=1)
    assert photos.held_out is not None and not photos.held_out.trusted.any() and photos.trusted.all()
    said = [text for text in photos.findings if text.startswith("03.png: is held out")]
    assert len(said) == 1 and "cannot be compared with the asset" in said[0]


@pytest.mark.parametrize(
    ("hold_out", "sentence"),
    [
        (5, "keeps 5 of 5 photos from training, and at least 3 must remain"),
        (9, "keeps 5 of 5 photos"),
        (3, "keeps 3 of 5 photos"),
        (("00.png", "01.png", "02.png"), "keeps 3 of 5 photos"),
        (("00.png", "7.png"), "photos.hold_out names 7.png, but the photos there are 00.png, 01.png"),
    ],
)
def test_too_few_or_unknown_photos_stop_with_one_sentence(tmp_path: Path, hold_out: object, sentence: str) -> None:
    folder = write_set(tmp_path / "rex", 5)
    with pytest.raises(PhotoSetError, match=sentence):
        inspect_folder(folder, PhotosConfig(hold_out=hold_out))


def test_copies_of_what_remains_do_not_count(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", 4)
    shutil.copy(folder / "00.png", folder / "01.png")
    inspect_folder(folder)
    with pytest.raises(PhotoSetError, match="3 files beside those that photos.hold_out names \\(1\\), but only 2"):
        inspect_folder(folder, PhotosConfig(hold_out=("03.png",)))


@pytest.mark.parametrize("value", [-1, 1.5, True, [1, 2], [""], None])
def test_the_setting_is_a_number_or_names(value: object) -> None:
    with pytest.raises(ValidationError, match="neither a number of photos, 0 or more, nor a list") as found:
        PhotosConfig(hold_out=value)
    assert found.value.errors()[0]["loc"] == ("hold_out",)


def test_a_number_may_be_given_as_the_lone_text_of_an_override() -> None:
    assert PhotosConfig(hold_out=["2"]).hold_out == 2
    assert PhotosConfig(hold_out=["a.jpg", "2"]).hold_out == ("a.jpg", "2")
    assert PhotosConfig.model_validate(PhotosConfig(hold_out=("a.jpg",)).model_dump(mode="json")).hold_out == ("a.jpg",)


def test_the_truth_names_only_where_photos_that_teach_were_taken(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", 4)
    (folder / "ground_truth.yaml").write_text("class: dog\nseed: 3\nphoto_azimuths_deg: [1, 2, 3, 4]\n")
    assert ground_truth(PhotosConfig(dir=str(folder))).photo_azimuths_deg == (1, 2, 3, 4)
    assert ground_truth(PhotosConfig(dir=str(folder), hold_out=1)).photo_azimuths_deg == (1, 2, 4)
