"""The code archive as ZenML builds it: all code, no models and no data, and it works where it is unpacked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zenml.pipelines.pipeline_definition as pipeline_definition
from zenml.utils import code_utils

from operations.launch.archive import is_code, lean_code_archive
from tests.product import ROOT

LIMIT_BYTES = 2 * 2**20
NEEDED = (
    "pipelines/training.py", "operations/launch/strict.py", "steps/publish.py", "materializers/files.py",
    "dreambooth3d/config/photos.py", "dreambooth3d/export/viewer.html", "dreambooth3d/cli/needs.yaml",
    "configs/demo.yaml", "data.dvc", ".dvc/config", "pyproject.toml", "requirements.lock",
)  # fmt: skip


def build(root: Path, target: Path) -> set[str]:
    """Build the archive by the very lines that ZenML's `_create_snapshot` runs; the names in it."""
    with lean_code_archive():
        archive = pipeline_definition.code_utils.CodeArchive(root=str(root))
    with open(target, "w+b") as file:
        archive.write_archive(file)
    with tarfile.open(target) as tar:
        return set(tar.getnames())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git checkout of the working tree, with a user's files around."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    root = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    (root / "outputs").mkdir()
    (root / "outputs" / "asset.glb").write_bytes(b"0" * 100)
    return root


@pytest.mark.parametrize("git", [True, False])
def test_archive_is_small_and_complete(checkout: Path, tmp_path: Path, git: bool) -> None:
    if not git:
        # As in an unpacked release: ZenML then takes every file that it finds.
        copied = tmp_path / "copy"
        shutil.copytree(checkout, copied, ignore=shutil.ignore_patterns(".git"))
        (copied / ".venv" / "lib").mkdir(parents=True)
        (copied / ".venv" / "lib" / "big.so").write_bytes(b"0" * 1000)
        checkout = copied
    names = build(checkout, tmp_path / "code.tar.gz")
    assert (tmp_path / "code.tar.gz").stat().st_size < LIMIT_BYTES
    assert set(NEEDED) <= names
    python = {
        str(path.relative_to(ROOT))
        for folder in ("dreambooth3d", "pipelines", "steps", "materializers")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert python <= names
    tops = {Path(name).parts[0] for name in names}
    assert not tops & {"models", "data", "data_store", "docs", "tests", "outputs", ".git", ".venv"}


def test_unpacked_code_is_imported_in_place(checkout: Path, tmp_path: Path) -> None:
    build(checkout, tmp_path / "code.tar.gz")
    shutil.unpack_archive(tmp_path / "code.tar.gz", tmp_path / "code", filter="data")
    code = "import pipelines.training as t, dreambooth3d.export.viewer; print(t.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "code", capture_output=True, text=True,
        env={"PATH": "", "PYTHONPATH": str(tmp_path / "code"), "ZENML_CONFIG_PATH": str(tmp_path / "zen"),
             "ZENML_ANALYTICS_OPT_IN": "false", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip().splitlines()[-1] == str(tmp_path / "code" / "pipelines" / "training.py")


def test_zenml_keeps_its_own_archive_elsewhere() -> None:
    original = code_utils.CodeArchive
    with lean_code_archive():
        assert code_utils.CodeArchive is not original
    assert code_utils.CodeArchive is original


def test_only_top_folders_are_left_out() -> None:
    assert is_code("dreambooth3d/models/thing.py")
    assert is_code("my_photos/subject.yaml")
    assert not is_code("models/toybox/unet/config.json")
    assert not is_code("steps/__pycache__/publish.cpython-311.pyc")
    assert not is_code(".dvc/cache/files/md5/00/11")
