"""A small repository with DVC-tracked photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.photos.photo_sets import write_set

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def dvc_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's DVC set-up with two subjects added and pushed; without `.git`. Not to be changed by a test."""
    dvc = pytest.importorskip("dvc.repo")
    root = tmp_path_factory.mktemp("dvc") / "repository"
    (root / ".dvc").mkdir(parents=True)
    shutil.copy(PROJECT / ".dvc" / "config", root / ".dvc" / "config")
    shutil.copy(PROJECT / ".dvcignore", root / ".dvcignore")
    write_set(root / "data" / "rex")
    write_set(root / "data" / "tom", count=3, class_noun="cat")
    (root / "data" / "rex" / "ground_truth.yaml").write_text("class: dog\nseed: 3\nphoto_azimuths_deg: [12.5, -40]\n")
    (root / "data" / "rex" / "é.txt").write_text("not in ASCII")
    # DVC takes targets relative to the current directory.
    with pytest.MonkeyPatch.context() as patch, dvc.Repo(str(root), config={"core": {"no_scm": True}}) as repo:
        patch.chdir(root)
        repo.add(["data"])
        repo.push()
    return root


@pytest.fixture
def dvc_repository(dvc_template: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(dvc_template, tmp_path / "copy"))
