"""The check of whole photo sets: what stops, what warns, and what travels on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import ValidationError

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.errors import ConfigError, DatasetError, PhotoSetError
from dreambooth3d.photos.check import check_photos, inspect_folder
from dreambooth3d.photos.showing import report_lines
from dreambooth3d.photos.subject import resolve_folder
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from tests.photos.photo_sets import photo, write_set


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(StepLog("validate_photos"), tmp_path / "work")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository as the current directory."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def _checked(folder: Path, runtime: Runtime, **limits):
    return check_photos(PhotosConfig(dir=str(folder), **limits), "untracked:0", PhotoModels(), runtime)


def test_good_set_passes_without_findings(tmp_path: Path, runtime: Runtime) -> None:
    photos = _checked(write_set(tmp_path / "rex"), runtime)
    assert photos.findings == ()
    assert (photos.subject, photos.class_noun, photos.identifier) == ("rex", "dog", "sks")
    assert photos.facts["file"].tolist() == ["00.png", "01.png", "02.png", "03.png"]
    assert photos.facts["sha256"].str.len().eq(64).all()
    assert [tuple(image.shape) for image in photos.images] == [(3, 160, 160)] * 4
    assert photos.record.metrics["photos"] == 4
    assert photos.record.params["dataset_hash"] == "untracked:0"
    assert photos.record.images["photos"].dtype == torch.uint8
    assert report_lines(photos)[-1] == "No warnings."


def test_check_is_deterministic(tmp_path: Path, runtime: Runtime) -> None:
    folder = write_set(tmp_path / "rex")
    first, second = inspect_folder(folder), inspect_folder(folder)
    assert first.facts.equals(second.facts)
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    folder = write_set(tmp_path / "rex", count=2)
    # What the camera stores for an upright photo with a red top-left corner, by EXIF orientation (the inverse
    # operation).
    transpose = Image.Transpose
    stored = [
        None, transpose.FLIP_LEFT_RIGHT, transpose.ROTATE_180, transpose.FLIP_TOP_BOTTOM,
        transpose.TRANSPOSE, transpose.ROTATE_90, transpose.TRANSVERSE, transpose.ROTATE_270,
    ][orientation - 1]  # fmt: skip
    upright = photo(7, size=(200, 120))
    upright.paste((255, 0, 0), (0, 0, 40, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if stored is None else upright.transpose(stored)).save(folder / "zz.jpg", exif=exif, quality=95)
    report = inspect_folder(folder)
    row, image = report.facts.iloc[-1], report.images[-1]
    assert (row["width"], row["height"]) == (200, 120)
    assert np.abs(image[40 + 10, 10].astype(int) - (255, 0, 0)).max() < 20
    assert (np.abs(image[40 + 110, 190].astype(int) - (255, 0, 0)).max()) > 100


def test_subject_at_the_border_survives(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    wide = photo(5, size=(1200, 500))
    wide.paste((0, 255, 0), (0, 200, 60, 300))
    wide.paste((0, 255, 0), (1140, 200, 1200, 300))
    wide.save(folder / "wide.png")
    report = inspect_folder(folder)
    image = report.images[-1]
    assert image.shape == (512, 512, 3)
    green = (image[..., 1] > 200) & (image[..., 0] < 60) & (image[..., 2] < 60)
    assert green[:, :20].any()
    assert green[:, -20:].any()
    assert green.sum() == pytest.approx(2 * 60 * 100 * (512 / 1200) ** 2, rel=0.1)
    assert any("1 of 4 photos not square" in text for text in report.findings)


def test_transparency_becomes_white_and_grey_and_palette_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "rex"
    folder.mkdir()
    clear = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    clear.paste((20, 40, 160, 255), (0, 0, 40, 80))
    clear.save(folder / "a.png")
    Image.fromarray(np.full((80, 80), 257 * 100, np.uint16)).save(folder / "b.png")
    photo(0).convert("P").save(folder / "c.png")
    photo(0).convert("CMYK").save(folder / "d.jpg")
    photo(0).save(folder / "e.webp")
    images = inspect_folder(folder).images
    assert (images[0][:, 40:] == 255).all() and (images[0][:, :40] == (20, 40, 160)).all()
    assert (images[1] == 100).all()
    assert all(image.shape[-1] == 3 for image in images)


def test_warnings_name_the_photo(tmp_path: Path, runtime: Runtime) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    original = photo(20, size=(256, 256))
    original.save(folder / "a.png")
    original.resize((200, 200)).save(folder / "b.jpg", quality=70)
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    photo(21, centre=(0.3, 0.4)).filter(ImageFilter.GaussianBlur(6)).save(folder / "d.png")
    ImageEnhance.Brightness(photo(22, centre=(0.6, 0.3))).enhance(0.1).save(folder / "e.png")
    Image.blend(photo(23), Image.new("RGB", (160, 160), "white"), 0.97).save(folder / "f.png")
    photo(24, radius=0.05).save(folder / "g.png")
    (folder / "h.gif").write_bytes(b"x")
    photos = _checked(folder, runtime)
    texts = {row.file: row.findings for row in photos.facts.itertuples()}
    assert "nearly the same photo as a.png" in texts["b.jpg"]
    assert "exact copy of a.png" in texts["c.png"]
    assert "blurred" in texts["d.png"]
    assert "very dark" in texts["e.png"]
    assert "very bright" in texts["f.png"]
    assert "subject is small" in texts["g.png"]
    assert all(texts[name] == "" for name in ("00.png", "01.png", "02.png", "a.png"))
    assert any("h.gif" in text for text in photos.findings)
    assert any(text.startswith("d.png: looks blurred") for text in photos.findings)


def _broken_sets(folder: Path) -> dict[str, str]:
    """Make one broken set per name; the value is what the error has to say."""
    for name in ("few", "many", "empty_photo", "text", "truncated", "small", "copies"):
        write_set(folder / name, count=2 if name == "few" else 21 if name == "many" else 4)
    (folder / "none").mkdir()
    (folder / "gif").mkdir()
    (folder / "gif" / "a.GIF").write_bytes(b"x")
    (folder / "video").mkdir()
    (folder / "video" / "IMG_1.MOV").write_bytes(b"x")
    (folder / "empty_photo" / "01.png").write_bytes(b"")
    (folder / "text" / "02.png").write_text("not an image")
    whole = (folder / "truncated" / "03.png").read_bytes()
    (folder / "truncated" / "03.png").write_bytes(whole[: len(whole) // 2])
    photo(0, size=(200, 50)).save(folder / "small" / "00.png")
    for index in (1, 2):
        (folder / "copies" / f"0{index}.png").write_bytes((folder / "copies" / "00.png").read_bytes())
    return {
        "few": "2 photos, at least 3 are needed",
        "many": "21 photos, at most 20",
        "none": "there are no photos",
        "gif": "Export as one of these what is there: a.GIF",
        "video": "Of a video, such as IMG_1.MOV, save four to eight sharp frames",
        "missing": "there is no such folder",
        "empty_photo": "01.png: the photo is empty",
        "text": "02.png: is not an image",
        "truncated": "03.png: the photo cannot be read",
        "small": "00.png: 200 x 50 pixels, at least 64",
        "copies": "only 2 distinct photos",
    }


def test_errors_say_what_where_and_what_to_do(tmp_path: Path, runtime: Runtime) -> None:
    for name, said in _broken_sets(tmp_path).items():
        with pytest.raises(PhotoSetError) as error:
            _checked(tmp_path / name, runtime, class_noun="dog")
        text = str(error.value)
        assert said in text, text
        assert name in text
        assert "\n" not in text
        assert text.endswith(".")


def test_subject_is_found_by_name_and_overridden_by_config(here: Path) -> None:
    write_set(here / "data" / "rex")
    (here / "data" / "rex" / "subject.yaml").write_text("class_noun: dog\nidentifier: xyz\ndescription: a red dog\n")
    folder, info = resolve_folder(PhotosConfig(subject="rex"))
    assert folder == here / "data" / "rex"
    assert (info.class_noun, info.identifier, info.description) == ("dog", "xyz", "a red dog")
    _, info = resolve_folder(PhotosConfig(subject="rex", class_noun="wolf", identifier="ohwx"))
    assert (info.class_noun, info.identifier) == ("wolf", "ohwx")


def test_subject_is_found_from_a_folder_inside_the_repository(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(here / "data" / "rex")
    (here / "docs").mkdir()
    monkeypatch.chdir(here / "docs")
    assert resolve_folder(PhotosConfig(subject="rex"))[0] == here / "data" / "rex"


def test_dir_wins_over_subject(here: Path) -> None:
    write_set(here / "data" / "rex")
    write_set(here / "elsewhere" / "duck_toy", class_noun=None)
    folder, info = resolve_folder(PhotosConfig(subject="rex", dir="elsewhere/duck_toy", class_noun="duck"))
    assert folder.name == "duck_toy"
    assert info.class_noun == "duck"


def test_missing_subject_names_the_ones_there_are(here: Path) -> None:
    write_set(here / "data" / "rex")
    with pytest.raises(PhotoSetError, match=r"data/rax: there is no such subject\. Choose photos\.subject among rex"):
        resolve_folder(PhotosConfig(subject="rax"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("class_noun: dog\nidentifer: sks\n", "identifer"),
        ("identifier: sks\n", "photos.class_noun"),
        ("class_noun: no\n", "class_noun"),
        ("class_noun: ''\n", "class_noun"),
        ("identifier: two words\nclass_noun: dog\n", "identifier"),
        ("class_noun: [dog\n", "not valid YAML"),
        ("dog\n", "has no keys"),
        ("class_noun: dog\nclass_noun: cat\n", "subject.yaml:2: is not valid YAML: the key 'class_noun' is"),
        (f"class_noun: {'[' * 500}{']' * 500}", "nested more than 40 levels deep"),
        ("class_noun: dog\ndescription: &a [x, *a]\n", "contains itself"),
        ("class_noun: dog\ndescription: !!python/object/apply:os.getcwd []\n", "means nothing here"),
        (f"class_noun: {'9' * 5000}\n", "too large a number"),
        ("? [a, b]\n: c\n", "a key must be text"),
    ],
)
def test_wrong_subject_file_is_a_config_error(here: Path, content: str, said: str) -> None:
    write_set(here / "data" / "rex")
    (here / "data" / "rex" / "subject.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        resolve_folder(PhotosConfig(subject="rex"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("subject", ["../rex", "", " ", "a/b", ".."])
def test_unusable_subject_names_are_refused(subject: str) -> None:
    with pytest.raises(ValidationError, match="is empty|is not the name of a folder"):
        PhotosConfig(subject=subject)


def test_no_photos_named_is_a_config_error(here: Path) -> None:
    with pytest.raises(ConfigError, match="photos: no photos are named"):
        resolve_folder(PhotosConfig())


def test_folder_without_class_noun_is_a_config_error(tmp_path: Path) -> None:
    write_set(tmp_path / "rex", class_noun=None)
    with pytest.raises(ConfigError, match=r"photos\.class_noun=dog"):
        resolve_folder(PhotosConfig(dir=str(tmp_path / "rex")))


def test_tracked_but_not_pulled_says_dvc_pull(here: Path, dvc_repository: Path) -> None:
    import shutil

    shutil.rmtree(dvc_repository / "data")
    with pytest.raises(DatasetError, match="dvc pull"):
        resolve_folder(PhotosConfig(subject="rex"), dvc_repository)
