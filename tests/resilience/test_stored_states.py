"""An unfinished step goes on on another machine, from what a remote artifact store has kept of its work folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dreambooth3d.artifacts import DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import ResumePoint, Runtime
from operations.launch import stored_states
from operations.launch.stored_states import TravellingFolder
from tests.photos.photo_sets import masked
from tests.remote_folder import Remote

NOTE = {"run": "the_first"}
CONFIG = FinetuneConfig(
    steps=6, checkpoint_every=2, batch_size=1, class_images=1, class_inference_steps=1, sample_every_checkpoint=False,
    warmup_steps=2,
)  # fmt: skip


class Lost(Exception):
    """The machine."""


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state is saved, and copied."""
    monkeypatch.setattr(stored_states, "INTERVAL_S", 0.0)
    monkeypatch.setattr(stored_states, "COPYING_SHARE", 0)
    monkeypatch.setattr(ResumePoint, "due", lambda point: True)


def tuned(base: Path, runtime: Runtime) -> list[tuple[int, str, str]]:
    """The checkpoints of a fine-tuning, by their digests."""
    photos = tuple(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    subject = masked(SubjectPhotos(photos, pd.DataFrame(), (), "rex", "sks", "dog", "", "untracked:0"))
    found = finetune(subject, resolve(BaseModelConfig(path=str(base))), CONFIG, 0, runtime).checkpoints

    def digests(step: int, pair: DreamBoothCheckpoint) -> tuple[int, str, str]:
        return step, pair.unet.sha256, pair.text_encoder.sha256

    return [digests(step, pair) for step, pair in found.items()]


def test_a_training_goes_on_on_another_machine(
    tiny_base_model: Path,
    remote_store: Any,
    often: None,
    tmp_path: Path,
) -> None:
    """Its work folder lies elsewhere there; checkpoints that were saved before are found again."""
    here, there = tmp_path / "here" / "step-0", tmp_path / "there" / "step-0"
    copy, saved = TravellingFolder(here, remote_store, NOTE), list[int]()

    def keep_then_die() -> None:
        copy.keep()
        saved.append(1)
        if len(saved) == 4:
            raise Lost

    with pytest.raises(Lost):
        tuned(tiny_base_model, Runtime(StepLog("finetune"), here, progress=False, on_saved=keep_then_die))
    shutil.rmtree(here)
    copy = TravellingFolder(there, remote_store, NOTE)
    copy.fetch()
    log = StepLog("finetune")
    resumed = tuned(tiny_base_model, Runtime(log, there, progress=False, on_saved=copy.keep))
    whole = StepLog("finetune")
    assert resumed == tuned(tiny_base_model, Runtime(whole, tmp_path / "untouched", progress=False))
    losses = [each.record().series.query("name == 'loss'").value.tolist() for each in (log, whole)]
    assert losses[0] == losses[1]
    copy.forget()
    assert list(stored_states.stored_states(remote_store)) == []


def state(folder: Path, value: float) -> ResumePoint:
    """A folder with one state and one file that stays the same."""
    point = ResumePoint(folder / "state")
    point.save({"weight": torch.full((3,), value)})
    (folder / "checkpoint").write_bytes(b"weights")
    return point


def brought(store: Any, folder: Path) -> float | None:
    """The weight that another machine goes on with."""
    shutil.rmtree(folder, ignore_errors=True)
    TravellingFolder(folder, store, NOTE).fetch()
    found = ResumePoint(folder / "state").load()
    assert (folder / "checkpoint").exists() == (found is not None)
    return None if found is None else float(found["weight"][0])


@pytest.mark.parametrize("opened", range(3))
def test_a_store_that_fails_keeps_the_copy_of_before_and_costs_one_warning(
    opened: int, remote_store: Any, often: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """At any file of a copy; the step itself goes on."""
    folder, there = tmp_path / "here" / "step-0", tmp_path / "there" / "step-0"
    copy = TravellingFolder(folder, remote_store, NOTE)
    state(folder, 1.0)
    copy.keep()
    monkeypatch.setattr(Remote, "failure", ConnectionResetError(104, "Connection reset by peer"))
    monkeypatch.setattr(Remote, "fails_after", opened)
    state(folder, 2.0)
    copy.keep()
    copy.keep()
    monkeypatch.setattr(Remote, "failure", None)
    # Of two new files the state's own and the list are opened.
    assert brought(remote_store, there) == (1.0 if opened < 2 else 2.0)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (1 if opened < 2 else 0), warnings
    copy.keep()
    assert brought(remote_store, there) == 2.0
    assert len(list((Remote.root / "store" / stored_states.FOLDER / "step-0").iterdir())) == 3, "two files and the list"


def test_a_damaged_copy_is_not_believed(
    remote_store: Any,
    often: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "here" / "step-0"
    state(folder, 1.0)
    TravellingFolder(folder, remote_store, NOTE).keep()
    for file in (Remote.root / "store" / stored_states.FOLDER / "step-0").iterdir():
        if file.name != stored_states.LIST and file.stat().st_size > 10:
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
    there = tmp_path / "there" / "step-0"
    assert brought(remote_store, there) is None and "starts from its beginning" in caplog.text
    assert not list(there.parent.iterdir()), "nothing is left"


def test_a_store_on_this_machine_gets_no_copies_and_a_state_here_is_the_one(
    remote_store: Any,
    often: None,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "here" / "step-0"
    state(folder, 1.0)
    local = replace_path(remote_store, str(tmp_path / "store"))
    TravellingFolder(folder, local, NOTE).keep(now=True)
    assert not (tmp_path / "store").exists()
    TravellingFolder(folder, remote_store, NOTE).keep()
    state(folder, 2.0)
    TravellingFolder(folder, remote_store, NOTE).fetch()
    found = ResumePoint(folder / "state").load()
    assert found is not None and float(found["weight"][0]) == 2.0


def replace_path(store: Any, path: str) -> Any:
    """The same store at another place."""
    return type(store)(**{**vars(store), "path": path})
