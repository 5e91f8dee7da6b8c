"""What a machine refuses is one sentence that names the remedy, and leaves nothing half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.diffusion.finetuning import class_images
from dreambooth3d.errors import ConfigError, DiskError, MemoryShortageError
from dreambooth3d.faults import SMALLER, explained, in_one_sentence
from dreambooth3d.runtime import ResumePoint
from dreambooth3d.weights import save_weights
from materializers.files import copy_file
from tests.materializers.test_round_trips import MAKERS, materializer_of

ENOSPC = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
# As safetensors and SQLite, below SQLAlchemy and MLflow, say it.
FOREIGN = (
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO metrics ...]"),
)


@pytest.mark.parametrize("error", [ENOSPC, OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/file"), *FOREIGN])
def test_a_full_disk_is_named_with_its_remedy(error: Exception) -> None:
    with pytest.raises(DiskError) as raised, in_one_sentence():
        try:
            raise error
        except Exception as inner:  # as libraries wrap what they get
            raise ValueError("could not be stored") from inner
    said = str(raised.value)
    assert "is full" in said and "MiB free" in said and "Free space there" in said and "\n" not in said
    if getattr(error, "filename", None):
        assert "/tmp/file" in said


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EROFS, os.strerror(errno.EROFS), "/store/x"), RuntimeError("attempt to write a readonly database")],
)
def test_a_read_only_disk_is_named(error: Exception) -> None:
    with pytest.raises(DiskError, match="read-only.*Make it writable again"), in_one_sentence():
        raise error


def test_a_file_without_permission_and_a_missing_temporary_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="/there/file: may not be used by this user"), in_one_sentence():
        raise PermissionError(errno.EACCES, "Permission denied", "/there/file")
    with pytest.raises(DiskError, match="set TMPDIR"), in_one_sentence():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


@pytest.mark.parametrize(
    "error", [ConfigError("is full"), FileNotFoundError(2, "No such file", "x"), KeyError("x"), ConnectionError()]
)
def test_every_other_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, in_one_sentence():
        raise error
    assert raised.value is error


def test_a_user_s_error_hides_no_fault_behind_it() -> None:
    try:
        try:
            raise ENOSPC
        except OSError:
            raise ConfigError("something else") from None
    except ConfigError as error:
        assert explained(error) is None


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.00 GiB."


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        ("init_nerf", "init_nerf.views_per_step or init_nerf.render.size"),
        ("edit_nerf_0", "edit_nerf.views_per_step"),
        ("export_context_2", "export_asset.mesh_resolution"),
        ("finetune_dreambooth", "finetune_dreambooth.batch_size"),
    ],
)
def test_a_gpu_without_memory_names_the_settings_that_help(step: str, settings: str) -> None:
    with pytest.raises(MemoryShortageError) as raised, in_one_sentence(step):
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)
    said = str(raised.value)
    assert said.startswith(f"{step}: the GPU's memory") and "2.00 GiB" in said and settings in said


def test_memory_of_the_machine_counts_as_well() -> None:
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):
        with pytest.raises(MemoryShortageError, match="the machine's memory"), in_one_sentence("evaluate"):
            raise error


def test_every_setting_that_is_named_is_one() -> None:
    for section, names in SMALLER.items():
        for name in names:
            found: Any = TrainingConfig.model_fields[section].annotation
            for part in name.split("."):
                assert part in found.model_fields, f"{section}.{name}"
                found = found.model_fields[part].annotation


def cut_off(path: Path) -> None:
    """As a disk leaves a file on which it runs full."""
    Path(path).write_bytes(b"cut off")
    raise FOREIGN[0]


def test_a_full_disk_keeps_the_last_state_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = ResumePoint(tmp_path / "state")
    point.save({"step": 1})
    monkeypatch.setattr("dreambooth3d.runtime.save_file", lambda _tensors, path, **_options: cut_off(path))
    with pytest.raises(DiskError, match=r"is full \(writing .*state.partial\)"):
        point.save({"step": 2})
    assert [path.name for path in point.folder.iterdir()] == ["state.safetensors"]
    monkeypatch.undo()
    assert point.load() == {"step": 1}
    point.save({"step": 2})
    assert point.load() == {"step": 2}


def test_a_full_disk_keeps_the_weights_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "unet.safetensors"
    before = save_weights({"a": torch.ones(2)}, file)
    monkeypatch.setattr("dreambooth3d.weights.save_file", lambda _tensors, path: cut_off(path))
    with pytest.raises(DiskError, match="is full"):
        save_weights({"a": torch.zeros(2)}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["unet.safetensors"]
    assert before.load()["a"].tolist() == [1, 1]


def test_a_full_disk_leaves_no_half_of_a_class_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "save", lambda _image, path, **_options: cut_off(path))
    with pytest.raises(RuntimeError):
        class_images._write(torch.zeros(3, 4, 4), tmp_path / "00000.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", MAKERS)
def test_an_artifact_is_stored_whole_or_not_at_all(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file's turn, as the store's disk runs full."""
    store, value = SimpleNamespace(path=str(tmp_path)), make()
    materializer = materializer_of(value, store)
    places: list[str] = []

    def remembering(source: str, target: str) -> None:
        places.append(target)
        copy_file(source, target)

    def full_at(place: str) -> Callable[[str, str], None]:
        def copy(source: str, target: str) -> None:
            if target == place:
                cut_off(Path(target))
            copy_file(source, target)

        return copy

    monkeypatch.setattr("materializers.files.copy_file", remembering)
    materializer.save(value)
    assert places
    for place in (places[0], places[-1]):
        monkeypatch.setattr("materializers.files.copy_file", full_at(place))
        with pytest.raises(DiskError, match="is full"):
            materializer.save(value)
        assert not Path(materializer.uri).exists()
    monkeypatch.setattr("materializers.files.copy_file", copy_file)
    materializer.save(value)
    materializer.load(type(value))
