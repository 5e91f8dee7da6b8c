"""Identity and drift of photo sets, against DVC's own API."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import DatasetError
from dreambooth3d.photos.dataset import content_digest, dataset_hash, ground_truth
from tests.photos.photo_sets import write_set

REX, TOM = PhotosConfig(subject="rex"), PhotosConfig(subject="tom")


def _hash_by_dvc(root: Path, subject: str) -> str:
    from dvc.repo import Repo

    with Repo(str(root), config={"core": {"no_scm": True}}) as repo:
        out = repo.find_outs_by_path(str(root / "data"))[0]
        return out.get_obj().get_obj(out.cache, (subject,)).hash_info.value


def test_hash_is_the_one_of_dvc(dvc_template: Path) -> None:
    assert dataset_hash(REX, dvc_template) == _hash_by_dvc(dvc_template, "rex")
    assert dataset_hash(TOM, dvc_template) == _hash_by_dvc(dvc_template, "tom")


def test_hash_is_the_same_in_a_fresh_clone_without_cache(dvc_repository: Path) -> None:
    expected = dataset_hash(REX, dvc_repository)
    shutil.rmtree(dvc_repository / ".dvc" / "cache")
    assert dataset_hash(REX, dvc_repository) == expected


def test_list_of_files_comes_from_another_remote_through_dvc(dvc_repository: Path) -> None:
    expected = dataset_hash(REX, dvc_repository)
    shutil.rmtree(dvc_repository / ".dvc" / "cache")
    (dvc_repository / "data_store").rename(dvc_repository / "bucket")
    config = dvc_repository / ".dvc" / "config"
    config.write_text(config.read_text().replace("../data_store", "../bucket"))
    assert dataset_hash(REX, dvc_repository) == expected


def test_damaged_list_of_files_is_not_believed(dvc_repository: Path) -> None:
    for listing in list(dvc_repository.rglob("*.dir")):
        listing.chmod(0o644)
        listing.write_text("[]")
    with pytest.raises(DatasetError, match="dvc pull"):
        dataset_hash(REX, dvc_repository)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rex: (rex / "01.png").unlink(), r"data/rex/01\.png: is tracked by DVC but missing.*dvc pull"),
        (lambda rex: shutil.copy(rex / "02.png", rex / "01.png"), r"data/rex/01\.png: has changed.*dvc add data"),
        (lambda rex: (rex / "new.png").write_bytes(b"x"), r"data/rex/new\.png: is not tracked.*dvc add data"),
        (lambda rex: (rex / "subject.yaml").write_text("class_noun: cat\n"), r"data/rex/subject\.yaml: has changed"),
    ],
)
def test_drift_names_the_file(dvc_repository: Path, monkeypatch: pytest.MonkeyPatch, change, said: str) -> None:
    monkeypatch.chdir(dvc_repository)
    rex = dvc_repository / "data" / "rex"
    for path in rex.iterdir():
        path.chmod(0o644)
    before = dataset_hash(TOM)
    change(rex)
    with pytest.raises(DatasetError, match=said) as error:
        dataset_hash(REX)
    assert "\n" not in str(error.value)
    assert dataset_hash(TOM) == before


def test_ignored_files_are_no_drift(dvc_repository: Path) -> None:
    before = dataset_hash(REX, dvc_repository)
    (dvc_repository / "data" / "rex" / ".DS_Store").write_bytes(b"x")
    assert dataset_hash(REX, dvc_repository) == before == _hash_by_dvc(dvc_repository, "rex")


def test_damaged_pointer_is_a_dataset_error(dvc_repository: Path) -> None:
    (dvc_repository / "data.dvc").write_text("outs: 3\n")
    with pytest.raises(DatasetError, match=r"data\.dvc"):
        dataset_hash(REX, dvc_repository)


def test_new_subject_is_untracked_until_it_is_added(dvc_repository: Path) -> None:
    folder = write_set(dvc_repository / "data" / "new")
    assert dataset_hash(PhotosConfig(subject="new"), dvc_repository) == f"untracked:{content_digest(folder)}"


def test_untracked_hash_depends_on_names_and_bytes_only(tmp_path: Path) -> None:
    folder, copy = write_set(tmp_path / "a"), tmp_path / "b"
    shutil.copytree(folder, copy)
    first = dataset_hash(PhotosConfig(dir=str(folder)))
    assert first.startswith("untracked:")
    assert len(first) == len("untracked:") + 64
    (copy / "notes.txt").write_text("not part of the set")
    assert dataset_hash(PhotosConfig(dir=str(copy))) == first
    (copy / "00.png").rename(copy / "09.png")
    renamed = dataset_hash(PhotosConfig(dir=str(copy)))
    assert renamed != first
    (copy / "09.png").write_bytes(b"other")
    assert dataset_hash(PhotosConfig(dir=str(copy))) not in (first, renamed)


def test_ground_truth_is_read_where_there_is_one(dvc_template: Path) -> None:
    assert ground_truth(REX, dvc_template).recipe == {"class": "dog", "seed": 3}
    assert ground_truth(REX, dvc_template).photo_azimuths_deg == (12.5, -40.0)
    assert not ground_truth(TOM, dvc_template).known


def test_azimuths_that_are_no_numbers_are_a_dataset_error(dvc_repository: Path) -> None:
    path = dvc_repository / "data" / "tom" / "ground_truth.yaml"
    path.write_text("class: cat\nphoto_azimuths_deg: [left]\n")
    with pytest.raises(DatasetError, match="photo_azimuths_deg is not a list of numbers"):
        ground_truth(TOM, dvc_repository)


def test_damaged_ground_truth_is_a_dataset_error(dvc_repository: Path) -> None:
    path = dvc_repository / "data" / "tom" / "ground_truth.yaml"
    path.write_text("- a list\n")
    with pytest.raises(DatasetError, match=r"ground_truth\.yaml"):
        ground_truth(TOM, dvc_repository)
