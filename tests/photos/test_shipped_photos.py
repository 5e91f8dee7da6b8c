"""The photo sets that ship with the repository: the embedded remote holds exactly what `data.dvc` records."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dreambooth3d.photos.check import inspect_folder
from dreambooth3d.photos.subject import SubjectInfo, read_mapping
from dreambooth3d.photos.tracking import recorded_entries

PROJECT = Path(__file__).resolve().parents[2]
STORE = PROJECT / "data_store" / "files" / "md5"
pytestmark = pytest.mark.skipif(not (PROJECT / "data.dvc").is_file(), reason="no shipped photos")


def _object(md5: str) -> Path:
    return STORE / md5[:2] / md5[2:]


def test_every_recorded_file_is_in_the_embedded_remote_undamaged() -> None:
    for path, md5 in recorded_entries(PROJECT).items():
        assert hashlib.md5(_object(md5).read_bytes(), usedforsecurity=False).hexdigest() == md5, path


def test_embedded_remote_is_small_and_holds_nothing_else() -> None:
    stored = [path for path in STORE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) <= 5 * 2**20
    recorded = {_object(md5) for md5 in recorded_entries(PROJECT).values()}
    assert [path.name for path in set(stored) - recorded if path.suffix != ".dir"] == []


def test_shipped_subjects_pass_the_check_without_findings(tmp_path: Path) -> None:
    for path, md5 in recorded_entries(PROJECT).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(_object(md5).read_bytes())
    folders = sorted(path.parent for path in tmp_path.glob("*/ground_truth.yaml"))
    assert len(folders) >= 6
    for folder in folders:
        report = inspect_folder(folder)
        assert 4 <= len(report.facts) <= 6
        assert report.findings == (), folder.name
        SubjectInfo.model_validate(read_mapping(folder / "subject.yaml"))
