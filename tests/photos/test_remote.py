"""Photo sets from a DVC repository at a URL and revision, found and fetched at run time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from dreambooth3d.config.photos import DatasetConfig, PhotosConfig
from dreambooth3d.errors import DatasetError
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.photos.remote import RemoteDataset, fetch_subject, open_dataset
from dreambooth3d.photos.subject import resolve_folder
from dreambooth3d.photos.subjects import find_subjects

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.com")


def git(root: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git and DVC repository with two commits: tags v1, and v2 with one photo of `a` changed; its cache is empty."""
    root = tmp_path_factory.mktemp("source")
    git(root, "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    dvc(root, "remote", "add", "-q", "-d", "store", str(root.parent / "store"))
    for name in ("a", "b"):
        folder = root / "data" / name
        folder.mkdir(parents=True)
        (folder / "subject.yaml").write_text("class_noun: dog\n")
        for index in range(2):
            (folder / f"{index}.jpg").write_bytes(f"{name}{index}".encode())
    for tag in ("v1", "v2"):
        (root / "data" / "a" / "0.jpg").write_bytes(tag.encode())
        dvc(root, "add", "-q", "data")
        dvc(root, "push", "-q")
        git(root, "add", "data.dvc", ".gitignore", ".dvc/config")
        git(root, "commit", "-q", "-m", tag)
        git(root, "tag", tag)
    shutil.rmtree(root / ".dvc" / "cache")
    return root


def dvc_hash(root: Path, subject: str) -> str:
    """DVC's own answer for the files as they are now."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    odb = HashFileDB(LocalFileSystem(), str(root / ".dvc" / "tmp" / "odb"))
    return build(odb, str(root / "data" / subject), LocalFileSystem(), "md5")[2].hash_info.value


def test_versions_at_a_url(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .git, no .dvc
    url = f"file://{source}"
    old, new = (open_dataset(DatasetConfig(url=url, rev=rev)) for rev in ("v1", "v2"))
    assert old.subjects == new.subjects == ("a", "b")
    assert old.digest("a") != new.digest("a") and old.digest("b") == new.digest("b")
    assert [dataset.config.rev for dataset in (old, new)] == [git(source, "rev-parse", tag) for tag in ("v1", "v2")]
    assert open_dataset(DatasetConfig(url=url)).digest("a") == new.digest("a")
    assert new.digest("a") == dvc_hash(source, "a")
    assert (fetch_subject(old.config, "a") / "data" / "a" / "0.jpg").read_bytes() == b"v1"
    assert not (old.root / "data" / "b").exists()


def test_training_sees_a_tracked_photo_set(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = {entry.subject: entry for entry in find_subjects(DatasetConfig(url=f"file://{source}", rev="v1"), "all")}
    photos = found["a"].photos(PhotosConfig())
    assert dataset_hash(photos) == found["a"].data
    folder, info = resolve_folder(photos)
    assert info.class_noun == "dog" and {path.name for path in folder.iterdir()} == {"subject.yaml", "0.jpg", "1.jpg"}


def test_folder_without_git(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpacked code archive: the photos come from the remote that its DVC settings name."""
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.copytree(source / ".dvc", archive / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    shutil.copyfile(source / "data.dvc", archive / "data.dvc")
    monkeypatch.chdir(archive)
    (found,) = find_subjects(DatasetConfig(), ["b"])
    assert found.data == dvc_hash(source, "b")
    assert dataset_hash(found.photos(PhotosConfig())) == found.data
    with pytest.raises(DatasetError, match="has no .git"):
        open_dataset(DatasetConfig(url=str(archive), rev="v1"))


def test_checkout_s_own_photos_are_used_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "subject.yaml").write_text("class_noun: duck\n")
    monkeypatch.chdir(tmp_path)
    (found,) = find_subjects(DatasetConfig(), "all")
    assert found.subject == "mine" and found.dataset is None and found.data.startswith("untracked:")


def test_subject_that_is_missing_does_not_stop_the_others(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good, bad = find_subjects(DatasetConfig(url=str(source), rev="v2"), ("a", "nobody"))
    assert good.data and not good.error
    assert "there is no subject 'nobody'. Choose among a, b." in bad.error


def test_damaged_remote_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("tmp", "cache", "data"))
    shutil.copytree(source.parent / "store", tmp_path / "store")
    dvc(copy, "remote", "modify", "store", "url", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(DatasetConfig(url=str(copy)))
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and path.read_bytes() == b"a1":
            path.chmod(0o644)
            path.write_bytes(b"XX")
    with pytest.raises(DatasetError, match="a/1.jpg .* differs from its recorded hash|a/1.jpg could not be fetched"):
        fetch_subject(dataset.config, "a")


def test_what_is_not_there_is_one_sentence(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for config in (
        DatasetConfig(url=str(tmp_path / "nowhere")),
        DatasetConfig(url=str(source), rev="v9"),
        DatasetConfig(url=str(source), rev="v1", path="other"),
    ):
        with pytest.raises(DatasetError, match="Check") as raised:
            open_dataset(config)
        assert "\n" not in str(raised.value)


def test_credentials_are_refused() -> None:
    with pytest.raises(ValidationError, match="holds a password"):
        DatasetConfig(url="https://user:token@example.com/photos.git")
    for url in ("https://example.com/photos.git", "git@example.com:team/photos.git", "ssh://git@example.com:22/photos"):
        assert DatasetConfig(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://token@example.com/photos.git", "ssh://git:word@example.com/photos.git", "bob:word@example.com:photos",
        "https://example.com/photos.git?token=abc", "https://example.com/photos.git#abc",
        f"https://example.com/ghp_{'a1' * 18}/photos.git", f"hf_{'aB' * 15}@example.com:photos",
        f"s3://AKIA{'A1' * 8}@bucket/photos",
    ],
)  # fmt: skip
def test_a_secret_in_the_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url holds a password or token"):
        DatasetConfig(url=url)
    for fine in ("ssh://git@example.com/photos.git", "git@example.com:team/photos#1.git", "../photos #2", "/data/a?b"):
        assert DatasetConfig(url=fine).url == fine


def test_a_folder_that_no_setting_can_name_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly any name will do; before, `bob's car` would not."""
    entries = {f"{name}/a.jpg": "0" * 32 for name in ("dog", "bob's car", "Fido: 2", "a\\b", "${HOME}", "x" * 255)}
    dataset = RemoteDataset(Path(), DatasetConfig(url="x"), entries)
    monkeypatch.setattr("dreambooth3d.photos.subjects.open_dataset", lambda config: dataset)
    found = {one.subject: one.error for one in find_subjects(DatasetConfig(url="x"), "all")}
    assert found.pop("dog") == ""
    assert [found.pop(name) for name in ("bob's car", "Fido: 2")] == ["", ""]
    assert len(found) == 3 and {"a\\\\b", "$ {HOME}"} < found.keys()
    assert all("rename the folder" in error for error in found.values())


def test_no_clone_outlives_its_process(source: Path, tmp_path: Path) -> None:
    """DVC itself leaves them behind where it is not its own command that runs."""
    code = (
        "from dreambooth3d.config.photos import DatasetConfig; from dreambooth3d.photos.remote import open_dataset;"
        f"print(open_dataset(DatasetConfig(url='file://{source}', rev='v1')).subjects)"
    )
    folders = {"TMPDIR": str(tmp_path / "tmp"), "DREAMBOOTH3D_WORK": str(tmp_path / "work")}
    (tmp_path / "tmp").mkdir()
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | folders)
    assert not list((tmp_path / "tmp").iterdir())
