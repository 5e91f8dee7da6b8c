"""What killed processes leave, as `runs clean` finds it: nothing goes that somebody may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.client import Client
from zenml.enums import ExecutionStatus

from dreambooth3d import places
from dreambooth3d.cli import leftovers
from dreambooth3d.cli.leftovers import Leftover, find_leftovers
from dreambooth3d.cli.web.order import orders_folder
from dreambooth3d.locks import FolderLock
from dreambooth3d.runtime import work_root
from dreambooth3d.sources import library_digest
from dreambooth3d.temporary import temporary_folder
from operations.launch.stored_states import TravellingFolder, stored_states
from tests.operations.toy import run_toy

DIE = (
    "import os, signal; from dreambooth3d.temporary import temporary_folder\n"
    "with temporary_folder() as folder: (folder / 'model').touch(); os.kill(os.getpid(), signal.SIGKILL)"
)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def nothing_in_zenml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    monkeypatch.setattr(leftovers, "product_runs", list)
    monkeypatch.setattr(leftovers, "model_versions", list)
    monkeypatch.setattr(leftovers, "_is_stored", lambda step_run: step_run == "stored")
    monkeypatch.setattr(leftovers, "_active_store", lambda: SimpleNamespace(path=str(tmp_path)))


def work(name: str, **note: str) -> Path:
    """A work folder as a killed process leaves it."""
    folder = work_root() / f"init_nerf-{name * 16}"
    folder.mkdir(parents=True)
    (folder / "state.partial").write_bytes(b"half")
    if note:
        lock = FolderLock(folder)
        assert lock.acquire({"run": "died", "pid": 1, **note})
        lock.release()
    return folder


def clean(alive: bool = False, states: bool = False) -> list[Leftover]:
    found = list(find_leftovers((), alive, states))
    for leftover in found:
        if leftover.remove is not None:
            leftover.remove()
    return found


def order(name: str, days: float, *files: str) -> Path:
    """One of the web page as it is so many days after its last file was written."""
    folder = orders_folder() / name
    for file in ("duck/00.png", *files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - days * 86400,) * 2)
    return folder


@pytest.mark.parametrize("alive", [False, True])
def test_orders_of_the_web_page_go_by_their_age(alive: bool, nothing_in_zenml: None) -> None:
    """Those whose run may be going on stay, however long it has been silent."""
    started = ("config.yaml", "log.txt")
    unused, of_today = order("a", 1.5, "photos.html"), order("b", 0.5, "photos.html")
    old, recent = order("c", 31, *started), order("d", 29, *started)
    lively = order("e", 40, *started)
    (lively / "live").mkdir()
    (lively / "live" / "status.json").write_text("{}")
    told = {leftover.what: leftover.why for leftover in clean(alive)}
    gone = {unused} if alive else {unused, old}
    assert {path for path in (unused, of_today, old, recent, lively) if not path.exists()} == gone
    assert {Path(what) for what in told if "web" in what} == gone and "2 days ago" in told[str(unused)]


def test_work_goes_that_is_finished_or_that_no_code_goes_on_from(nothing_in_zenml: None) -> None:
    stored = work("a", step_run="stored", library=library_digest())
    of_other_code = work("b", step_run="lost", library="other")
    unfinished = work("c", step_run="lost", library=library_digest())
    of_old_release = work("d")
    in_use = work("e", step_run="stored", library=library_digest())
    holder = FolderLock(in_use)
    assert holder.acquire()
    (cache := work_root() / "class_images" / "0").mkdir(parents=True)

    told = {leftover.what.split()[0]: leftover for leftover in clean(alive=True)}
    assert not stored.exists() and not of_other_code.exists()
    assert not stored.with_name(f"{stored.name}.lock").exists()
    assert unfinished.exists() and "the same command goes on from it" in told[str(unfinished)].why
    assert of_old_release.exists() and in_use.exists() and "uses it" in told[str(in_use)].why

    clean()
    assert unfinished.exists() and in_use.exists() and not of_old_release.exists()
    clean(states=True)
    assert not unfinished.exists() and in_use.exists() and cache.exists()
    holder.release()
    clean()
    assert not in_use.exists()


def test_states_in_a_remote_store_go_once_nobody_needs_them(
    nothing_in_zenml: None, remote_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_active_store", lambda: remote_store)
    alive = SimpleNamespace(id="0", name="alive", status=ExecutionStatus.RUNNING, steps={})
    monkeypatch.setattr(leftovers, "product_runs", lambda: [alive])
    for name, run, step_run in (("a", "alive", "running"), ("b", "ended", "stored"), ("c", "died", "lost")):
        folder = work(name)
        (folder / "state.safetensors").write_bytes(b"whole")
        TravellingFolder(folder, remote_store, {"run": run, "step_run": step_run}).keep(now=True)
        shutil.rmtree(folder)
    told = {leftover.what[-1]: leftover.why for leftover in clean()}
    assert (told["a"], told["b"]) == ("run alive uses it", "run ended has stored its result")
    assert "the same command goes on from it on any machine" in told["c"]
    assert [state.place[-1] for state in stored_states(remote_store)] == ["a", "c"]
    clean(states=True)
    assert [state.place[-1] for state in stored_states(remote_store)] == ["a"]


def test_a_killed_processs_temporary_folder_goes(nothing_in_zenml: None, own_temporary_folder: Path) -> None:
    environment = os.environ | {"TMPDIR": str(own_temporary_folder)}
    subprocess.run([sys.executable, "-c", DIE], env=environment, check=False)
    (left,) = own_temporary_folder.iterdir()
    with temporary_folder() as mine:
        assert [leftover.what for leftover in clean()] == [str(left)]
        assert mine.exists() and not left.exists()
    assert not list(own_temporary_folder.iterdir())


def test_a_partial_file_goes_with_its_process(nothing_in_zenml: None) -> None:
    folder = work_root() / "class_images" / "0"
    folder.mkdir(parents=True)
    free = next(number for number in range(2**22 - 1, 0, -1) if not os.path.exists(f"/proc/{number}"))
    processes = (("0", free), ("1", free), ("2", os.getpid()))
    dead, young, alive = (folder / f".{name}.png.{pid}.partial" for name, pid in processes)
    for file in (dead, young, alive):
        file.touch()
    for file in (dead, alive):
        os.utime(file, (0, 0))
    assert [leftover.what for leftover in clean()] == [str(dead)]
    assert not dead.exists() and young.exists() and alive.exists()


def test_what_zenml_never_came_to_know_goes_and_what_it_knows_stays(home: Path) -> None:
    run_toy(seed=31)
    with pytest.raises(RuntimeError):
        run_toy(subject="failing", seed=31, fail=True)
    failed = next(run for run in Client().list_pipeline_runs(sort_by="desc:created", hydrate=True).items)
    step = failed.steps["finish"]
    place = Path(Client().active_stack.artifact_store.path) / "finish" / "value" / str(step.id) / "1234"
    assert not [leftover for leftover in clean() if leftover.what.startswith(str(place.parent))], "it is empty"
    before = {path for path in place.parents[3].rglob("*") if path.is_file()}
    place.mkdir(parents=True)
    (place / "data.json").touch()
    clean()
    assert not place.parent.exists()
    assert {path for path in place.parents[3].rglob("*") if path.is_file()} == before
    assert not clean()
