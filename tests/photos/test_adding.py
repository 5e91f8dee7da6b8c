"""A new subject in a DVC repository: what is written, what DVC records of it, and that nothing is half-done."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dreambooth3d.cli.photo_adding import add_photos
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError, DatasetError, DreamBooth3DError, PhotoSetError
from dreambooth3d.photos.adding import MAX_SIDE_PX, add_subject
from dreambooth3d.photos.cameras.focal import focal_lengths
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.photos.reading import read_photo
from dreambooth3d.photos.subject import resolve_folder
from dreambooth3d.photos.tracking import recorded_entries
from tests.photos.photo_sets import photo, write_set
from tests.photos.test_decoding import HEIC


@pytest.fixture
def repository(dvc_repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(dvc_repository)
    return dvc_repository


def state(root: Path) -> dict[str, bytes]:
    """All that a user sees there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and ".dvc" not in path.relative_to(root).parts}  # fmt: skip


def phone_photos(folder: Path) -> list[Path]:
    """A large photo that lies on its side, with a focal length and a mask, a small one with a caption, and a TIFF."""
    folder.mkdir()
    large, small, tiff = folder / "IMG_2.JPG", folder / "IMG_3.png", folder / "IMG_4.tif"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 26
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    photo(1, (MAX_SIDE_PX + 452, 1500)).save(large, quality=92, exif=exif)
    mask = Image.new("L", (1500, MAX_SIDE_PX + 452))
    mask.paste(255, (300, 600, 1200, 1900))
    mask.save(folder / "IMG_2_mask.png")
    photo(2).save(small)
    (folder / "IMG_3.txt").write_text("a photo of a sks dog on grass")
    photo(3, (640, 480)).save(tiff)
    return [large, small, tiff]


def test_photos_are_converted_where_need_be_and_recorded_alone(repository: Path, tmp_path: Path) -> None:
    before = recorded_entries(repository) or {}
    # Neither what is missing nor what is new elsewhere in data/ is recorded along the way.
    (repository / "data" / "tom" / "00.png").unlink()
    write_set(repository / "data" / "other")
    large, small, tiff = phone_photos(tmp_path / "phone")
    added = add_subject("bello", [tmp_path / "phone"], "dog")
    assert [(each.name, each.source.name, each.converted) for each in added.photos] == [
        ("00.jpg", "IMG_2.JPG", True), ("01.png", "IMG_3.png", False), ("02.jpg", "IMG_4.tif", True)
    ]  # fmt: skip
    folder = repository / "data" / "bello"
    assert (folder / "01.png").read_bytes() == small.read_bytes()
    assert (folder / "01.txt").read_text() == "a photo of a sks dog on grass"
    assert focal_lengths(folder)[0] == 26
    with Image.open(folder / "00.jpg") as converted:
        assert max(converted.size) < MAX_SIDE_PX and converted.height > converted.width
        assert not converted.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    # The pipeline sees what it would have seen of the originals.
    for name, original in (("00.jpg", large), ("02.jpg", tiff)):
        one, other = read_photo(folder / name), read_photo(original)
        assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 2
        assert (one.mask is None) == (other.mask is None)
        if one.mask is not None and other.mask is not None:
            assert np.abs(one.mask.astype(int) - other.mask).mean() < 1
    after = recorded_entries(repository) or {}
    assert {path: md5 for path, md5 in after.items() if not path.startswith("bello/")} == before
    assert sorted(path for path in after if path.startswith("bello/")) == [
        f"bello/{name}" for name in ("00.jpg", "00_mask.png", "01.png", "01.txt", "02.jpg", "subject.yaml")
    ]
    config = PhotosConfig(subject="bello")
    assert dataset_hash(config).endswith(".dir") and resolve_folder(config)[1].class_noun == "dog"


def test_what_iphones_write_becomes_jpeg(repository: Path, tmp_path: Path) -> None:
    """As the set's error about its size shows, which names the folder that it was to become."""
    heic, before = tmp_path / "IMG_1.HEIC", state(repository)
    heic.write_bytes(base64.b85decode(HEIC))
    with pytest.raises(PhotoSetError, match=r"data/bello/00.jpg: 64 x 48 pixels"):
        add_subject("bello", [heic, write_set(tmp_path / "others", class_noun=None)], "dog")
    assert state(repository) == before


@pytest.mark.parametrize(
    ("name", "sentence", "kind"),
    [("rex", "there is such a subject already. To replace its photos", DatasetError),
     (".hidden", "can be no subject's name", ConfigError), ("a\\b", "can be no subject's name", ConfigError)],
)  # fmt: skip
def test_a_name_that_cannot_be_had_changes_nothing(
    repository: Path, name: str, sentence: str, kind: type[DreamBooth3DError]
) -> None:
    source, before = write_set(repository.parent / "source", class_noun=None), state(repository)
    with pytest.raises(kind, match=sentence):
        add_subject(name, [source], "dog")
    assert state(repository) == before


def test_a_recorded_subject_that_is_not_here_is_not_replaced(repository: Path) -> None:
    source = write_set(repository.parent / "source", class_noun=None)
    for path in (repository / "data" / "rex").iterdir():
        path.unlink()
    (repository / "data" / "rex").rmdir()
    with pytest.raises(DatasetError, match=r"data.dvc records such a subject"):
        add_subject("rex", [source], "dog")


def test_photos_that_cannot_be_used_change_nothing(repository: Path, tmp_path: Path) -> None:
    good, before = sorted(write_set(tmp_path / "good", class_noun=None).iterdir()), state(repository)
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:2000])
    for files, sentence in (
        ([*good, tmp_path / "page.jpg"], "page.jpg: is a HTML file"),
        ([*good, tmp_path / "cut.png"], "cut.png: the photo cannot be read"),
        ([*good, tmp_path / "none.jpg"], "none.jpg: there is no such file"),
        (good[:2], r"data/bello: 2 photos, at least 3 are needed"),
    ):
        with pytest.raises(PhotoSetError, match=sentence):
            add_subject("bello", files, "dog")
    assert state(repository) == before


def test_where_dvc_fails_all_is_as_before(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dvc.repo

    def refuse(*_: object, **__: object) -> None:
        (repository / "data.dvc").write_text("half")
        raise OSError("no space left on device")

    before, source = state(repository), write_set(tmp_path / "source", class_noun=None)
    monkeypatch.setattr(dvc.repo.Repo, "add", refuse)
    with pytest.raises(DatasetError, match="DVC cannot record it"):
        add_subject("bello", [source], "dog")
    assert state(repository) == before


def test_the_command_that_is_proposed_has_a_noun_that_the_bundled_model_knows(repository: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "photos")
    lines = add_photos("quietsche", [tmp_path / "photos"], "rubber duck")
    [proposed] = [line for line in lines if "dreambooth3d train" in line]
    assert proposed.endswith("photos.subject=quietsche photos.class_noun=duck")
    assert resolve_folder(PhotosConfig(subject="quietsche"))[1].class_noun == "rubber duck"
    assert resolve_folder(PhotosConfig(subject="quietsche", class_noun="duck"))[1].class_noun == "duck"
    [proposed] = [line for line in add_photos("ente", [tmp_path / "photos"], "duck") if "dreambooth3d train" in line]
    assert proposed.endswith("photos.subject=ente")
