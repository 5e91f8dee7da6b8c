"""`runs clean`: only what is surely dead is marked, in ZenML and in MLflow, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from dreambooth3d.cli import cleaning
from dreambooth3d.cli.cleaning import clean_runs
from dreambooth3d.errors import ConfigError
from operations.records import rows, tables
from operations.records.liveness import judge, last_sign_of_life, unfinished_runs
from operations.records.processes import this_process
from operations.records.reading import Reader
from tests.operations.toy import run_toy
from tests.product import ROOT

START = "from tests.operations.toy import configured, endless; configured(endless)()"


def stand_in(run: PipelineRunResponse, **process: object) -> SimpleNamespace:
    """The same run as if another process had started it."""
    config = SimpleNamespace(extra={"preset": "tiny", "process": process or None})
    known = {"id": run.id, "name": run.name, "stack": run.stack, "steps": run.steps, "created": run.created}
    return SimpleNamespace(config=config, start_time=None, **known)


def stands(name: str) -> list[str]:
    """How a run is shown to stand, read by the clients and from the files."""
    readers = Reader(), Reader.of_active_state()
    return [line["status"] for reader in readers for line in tables.briefs(reader, 100) if line["run"] == name]


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other processes have left on this machine is not this test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def running(home: Path) -> subprocess.Popen[bytes]:
    """A run in the middle of its step, in another process."""
    work = home / "alive"
    command = [sys.executable, "-c", START]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DREAMBOOTH3D_WORK": str(work)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    limit = time.monotonic() + 60
    while not (work / "alive").exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.1)
    assert (work / "alive").exists()
    yield process
    process.kill()
    process.wait()


def test_a_live_run_is_never_marked(running: subprocess.Popen[bytes], lines: list[str]) -> None:
    assert clean_runs(lines.append, older_than_h=1e-9) == 0
    assert f"its process {running.pid} runs on this machine" in lines[0]
    assert [run.status for run in unfinished_runs()] == ["running"]
    assert stands(unfinished_runs()[0].name) == ["running"] * 2


def test_a_killed_run_is_marked_once_in_both(running: subprocess.Popen[bytes], lines: list[str]) -> None:
    running.send_signal(signal.SIGKILL)
    running.wait()
    (dead,) = unfinished_runs()
    row = rows.find_row(dead.name)
    assert row.info.status == "RUNNING"
    assert stands(dead.name) == ["dead"] * 2

    corgi = Client().list_models(name="equals:dreambooth3d-corgi").items[0].id
    versions = {version.number for version in Client().list_model_versions(model=corgi).items}
    # In both, and the model version that has nothing in it.
    assert clean_runs(lines.append, dry_run=True) == 3
    assert len(Client().list_model_versions(model=corgi).items) == len(versions)
    assert [run.id for run in unfinished_runs()] == [dead.id]
    assert rows.find_row(dead.name).info.status == "RUNNING"

    assert clean_runs(lines.append) == 3
    assert len(Client().list_model_versions(model=corgi).items) == len(versions) - 1
    marked = Client().get_pipeline_run(dead.id)
    assert marked.status == "failed"
    assert {step.status for step in marked.steps.values()} == {"failed"}
    row = rows.find_row(dead.name)
    assert row.info.status == "KILLED"
    assert row.data.tags["died"] == f"its process {running.pid} on this machine is gone"
    assert rows.status_of(row) == "failed"
    assert stands(dead.name) == ["failed"] * 2

    lines.clear()
    assert clean_runs(lines.append) == 0
    assert lines == ["Nothing to clean."]


def test_a_run_that_ends_while_it_is_looked_at_stays_as_it_is(
    home: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is gone when it is judged; that it has ended shows only when it is read again."""
    ended = run_toy()
    gone = psutil.Process().pid, 0.0
    seen = stand_in(ended, host=this_process()["host"], pid=gone[0], started=gone[1])
    monkeypatch.setattr(cleaning, "unfinished_runs", lambda: [seen])
    assert clean_runs(lines.append) == 0
    assert lines == [f"{ended.name}: left alone, it has ended meanwhile.", "Nothing to clean."]
    assert Client().get_pipeline_run(ended.id).status == "completed"


def test_a_mark_that_was_interrupted_is_completed(home: Path, lines: list[str]) -> None:
    """ZenML had its mark, MLflow not yet."""
    run = run_toy(seed=21)
    identity = rows.find_row(run.name).info.run_id
    rows.client().update_run(identity, status="RUNNING")
    assert clean_runs(lines.append) == 1
    assert rows.client().get_run(identity).info.status == "FINISHED"
    assert clean_runs(lines.append) == 0


def test_a_row_that_says_completed_of_a_run_that_died_is_corrected(
    home: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last step had said that all is done, before that step's result was stored."""
    run = run_toy(seed=21)
    row = rows.find_row(run.name).info.run_id
    rows.client().set_tag(row, "status", "completed")
    assert clean_runs(lines.append) == 0
    failed = SimpleNamespace(status=ExecutionStatus.FAILED)
    monkeypatch.setattr(cleaning, "pipeline_runs", lambda names: {run.name: failed})
    assert clean_runs(lines.append) == 1
    found = rows.client().get_run(row)
    assert (found.info.status, found.data.tags["status"]) == ("KILLED", "failed")
    assert clean_runs(lines.append) == 0


def test_a_number_that_was_given_again_is_another_process(home: Path) -> None:
    run = run_toy(seed=21)
    mine = this_process()
    assert judge(stand_in(run, **mine)).state == "alive"
    assert judge(stand_in(run, **mine | {"started": mine["started"] - 1000})).state == "dead"
    free = next(number for number in range(2**22 - 1, 0, -1) if not psutil.pid_exists(number))
    assert judge(stand_in(run, **mine | {"pid": free})).state == "dead"


def test_a_run_elsewhere_dies_of_age_alone(home: Path) -> None:
    run = run_toy(seed=21)
    elsewhere = stand_in(run, host="other/abc", pid=1, started=0.0)
    now = last_sign_of_life(run) + timedelta(hours=5)
    assert judge(elsewhere, now=now).state == "unknown"
    assert judge(elsewhere, timedelta(hours=6), now).state == "unknown"
    assert judge(elsewhere, timedelta(hours=4), now).state == "dead"
    assert judge(stand_in(run), timedelta(hours=4), now).state == "dead"


def test_the_last_sign_of_life_is_the_last_steps(home: Path) -> None:
    run = run_toy(seed=21)
    ends = [step.end_time for step in run.steps.values()]
    assert last_sign_of_life(run) >= max(ends)
    assert last_sign_of_life(run) <= datetime.now(UTC).replace(tzinfo=None)


def test_nonsense_is_refused(home: Path, lines: list[str]) -> None:
    with pytest.raises(ConfigError, match="--older-than is 0"):
        clean_runs(lines.append, older_than_h=0)
