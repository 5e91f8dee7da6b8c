"""Promotion on real registries: whatever is cut off, readers see one complete version, and the next command mends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner
from zenml import get_step_context, pipeline, step
from zenml.client import Client
from zenml.utils.source_utils import set_custom_source_root

from dreambooth3d.errors import LockError, PromotionError, RunNotFoundError
from dreambooth3d.naming import model_name
from operations.records import rows
from operations.registry import lock
from operations.registry.decisions import PARTS
from operations.registry.promotion import (
    candidate,
    exclusive,
    history,
    objection_to,
    production,
    promote,
    refuse,
    repair,
    rollback,
)
from tests.pipelines.registries import add_version, delete_version, own_registries, seen_by_readers, set_stage

ROOT = Path(__file__).resolve().parents[2]
# Everything by which promotion writes.
WRITES = (
    (Client, "create_model"),
    (Client, "create_run_metadata"),
    (Client, "update_model_version"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "delete_registered_model_alias"),
    (Client, "delete_model"),
)


class Death(BaseException):
    """Stands for kill -9: nothing that the process would still do reaches a registry."""


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Real registries in this process; the variables are for other processes."""
    with own_registries(tmp_path_factory.mktemp("registries")) as found:
        yield found


@pytest.fixture(autouse=True)
def in_own_registries(variables: dict[str, str]) -> None:
    """No test may touch other registries."""


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead holder's lock expires soon; there is only one clock."""
    for name, seconds in (("LEASE_S", 2.0), ("RENEW_S", 0.3), ("CLOCK_SKEW_S", 0.0)):
        monkeypatch.setattr(lock, name, seconds)


def let_lock_expire(subject: str) -> None:
    """Let a dead holder's lock be as it is a minute later; nothing where none was left behind."""
    for held in Client().list_models(name=f"equals:lock.{model_name(subject)}", hydrate=True).items:
        note = json.loads(held.description) | {"expires": time.time() - lock.CLOCK_SKEW_S - 1.0}
        Client().update_model(held.id, description=json.dumps(note))


def two_versions(subject: str) -> None:
    add_version(subject, f"{subject}_1", psnr_fg=11.0)
    add_version(subject, f"{subject}_2", psnr_fg=12.0)


def in_production(subject: str) -> str:
    """The run that is in production, on which promotion and readers of either registry must agree."""
    version = production(subject)
    assert version is not None
    assert seen_by_readers(subject) == ([version.run], [version.run])
    return version.run


def changes(subject: str) -> list[tuple[str, str, str, str]]:
    return [(change.action, change.origin, change.target, change.outcome) for change in history(subject)]


def die_at(patch: pytest.MonkeyPatch, count: int, *, before: bool) -> Callable[[], bool]:
    """Let the process die at its write number `count` (from 0), before it is done or right after.

    Returns:
        Whether it has died.
    """
    writes = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > count + 1 or (before and writes == count + 1):
                raise Death
            result = write(*args, **kwargs)
            if writes == count + 1:
                raise Death
            return result

        return call

    for owner, name in WRITES:
        patch.setattr(owner, name, dying(getattr(owner, name)))
    return lambda: writes > count


def test_promoted_version_is_what_all_readers_see() -> None:
    two_versions("fox")
    assert production("fox") is None
    first, second = candidate("fox", "fox_1"), candidate("fox", "fox_2")
    assert (first.number, second.number) == ("1", "2")
    promote(first, "the first")
    assert in_production("fox") == "fox_1"
    promote(second, "better")
    assert production("fox") == second
    assert Client().get_model_version(model_name("fox"), "production").number == 2
    assert in_production("fox") == "fox_2"
    assert changes("fox") == [("promote", "", "1", "done"), ("promote", "1", "2", "done")]


def test_version_tells_what_its_run_recorded() -> None:
    add_version("elk", "elk_1", psnr_fg=13.5, status="interrupted", identity={"data": "abc", "config": "def"})
    add_version("elk", "elk_2")
    version = candidate("elk", "elk_1")
    assert version.metrics == {"evaluate/psnr_fg": 13.5}
    assert version.identity == {"data": "abc", "config": "def"}
    assert version.interrupted
    assert (candidate("elk", "elk_2").identity, candidate("elk", "elk_2").interrupted) == ({}, False)


def test_subject_whose_name_begins_another_is_not_mixed_up_with_it() -> None:
    add_version("catfish", "catfish_1")
    promote(candidate("catfish", "catfish_1"), "the first")
    assert production("cat") is None
    with pytest.raises(RunNotFoundError):
        rollback("cat", "none")


def test_promoting_the_same_again_writes_nothing() -> None:
    two_versions("hen")
    version = candidate("hen", "hen_1")
    promote(version, "the first")
    before = changes("hen")
    promote(version, "again")
    assert changes("hen") == before
    assert not repair("hen")


def test_rollback_goes_back_step_by_step() -> None:
    two_versions("ram")
    add_version("ram", "ram_3")
    for number in (1, 2, 3):
        promote(candidate("ram", f"ram_{number}"), "better")
    assert rollback("ram", "worse in use").run == in_production("ram") == "ram_2"
    assert rollback("ram", "worse still").run == in_production("ram") == "ram_1"
    with pytest.raises(PromotionError, match="ram: no other version was in production before"):
        rollback("ram", "too far")
    assert in_production("ram") == "ram_1"
    promote(candidate("ram", "ram_3"), "after all")
    assert rollback("ram", "no").run == "ram_1"


def test_what_was_rolled_back_is_not_trained_again_until_something_changes() -> None:
    made = {number: dict.fromkeys(PARTS, f"of {number}") for number in "12"}
    for number, identity in made.items():
        add_version("yak", f"yak_{number}", identity=identity)
        promote(candidate("yak", f"yak_{number}"), "better")
    assert not any(objection_to("yak", identity, "gates") for identity in made.values())
    rollback("yak", "it has six legs")
    assert objection_to("yak", made["2"], "gates").startswith("version 2, which was made of the same, was rolled back")
    assert objection_to("yak", made["2"], "gates").endswith(": it has six legs")
    assert not objection_to("yak", made["2"] | {"data": "new photos"}, "gates")
    promote(candidate("yak", "yak_2"), "after all")
    assert not objection_to("yak", made["2"], "gates")


def test_what_the_gates_kept_out_is_not_trained_again_until_they_or_production_change() -> None:
    same = dict.fromkeys(PARTS, "a")
    add_version("kid", "kid_1", identity=dict.fromkeys(PARTS, "b"))
    promote(candidate("kid", "kid_1"), "the first")
    add_version("kid", "kid_2", identity=same)
    refuse(candidate("kid", "kid_2"), "evaluate/psnr = 1 is below 2", "1", "gates")
    reason = "version 2, which was made of the same, was kept out: evaluate/psnr = 1 is below 2"
    assert objection_to("kid", same, "gates") == reason
    assert objection_to("kid", same, "looser gates") == "" == objection_to("kid", same | {"code": "new"}, "gates")
    add_version("kid", "kid_3")
    promote(candidate("kid", "kid_3"), "better")
    assert objection_to("kid", same, "gates") == ""


def test_rollback_passes_over_deleted_versions() -> None:
    two_versions("cod")
    add_version("cod", "cod_3")
    for number in (1, 2, 3):
        promote(candidate("cod", f"cod_{number}"), "better")
    delete_version("cod", 2)
    assert rollback("cod", "worse").run == in_production("cod") == "cod_1"


def test_stage_set_by_hand_is_the_truth_and_can_be_taken_back() -> None:
    two_versions("owl")
    promote(candidate("owl", "owl_1"), "the first")
    set_stage("owl", 2, "production")
    assert in_production("owl") == "owl_2"
    assert changes("owl")[-1] == ("outside", "1", "2", "done")
    assert rollback("owl", "not by hand").run == in_production("owl") == "owl_1"
    set_stage("owl", 1, "archived")
    assert production("owl") is None
    assert seen_by_readers("owl") == ([], [])
    assert rollback("owl", "it was good").run == in_production("owl") == "owl_1"


def test_alias_that_was_moved_by_hand_is_put_back() -> None:
    two_versions("bat")
    promote(candidate("bat", "bat_2"), "the best")
    rows.client().set_registered_model_alias(model_name("bat"), "production", "1")
    assert repair("bat")
    assert seen_by_readers("bat") == (["bat_2"], ["bat_2"])
    assert not repair("bat")


def test_two_versions_in_production_become_the_one_that_was_promoted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    two_versions("yak")
    add_version("yak", "yak_3")
    promote(candidate("yak", "yak_1"), "the first")
    promote(candidate("yak", "yak_2"), "better")
    # As two writers without a lock can leave it: neither sees the other's version in the stage.
    with monkeypatch.context() as patch:
        patch.setattr("zenml.zen_stores.schemas.ModelVersionSchema.update", _update_but_do_not_archive)
        set_stage("yak", 1, "production")
    assert sorted(seen_by_readers("yak")[0]) == ["yak_1", "yak_2"]
    assert in_production("yak") == "yak_2"


def _update_but_do_not_archive(self: Any, target_stage: str | None = None, **_: Any) -> Any:
    self.stage = self.stage if target_stage == "archived" else target_stage
    return self


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("action", ["first", "promote", "rollback"])
def test_death_at_any_write_leaves_one_version_and_is_mended(
    action: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = f"{action}-{before}".lower()
    two_versions(subject)
    first, second = candidate(subject, f"{subject}_1"), candidate(subject, f"{subject}_2")
    count, died = 0, True
    while died:
        if action == "first":
            set_stage(subject, 2, "archived")
            assert production(subject) is None
        else:
            promote(first, "the first")
        if action == "rollback":
            promote(second, "better")
        old = seen_by_readers(subject)[0]
        new = first.run if action == "rollback" else second.run
        with monkeypatch.context() as patch:
            has_died = die_at(patch, count, before=before)
            with suppress(Death):
                rollback(subject, "test") if action == "rollback" else promote(second, "test")
            died = has_died()
        let_lock_expire(subject)
        staged, aliased = seen_by_readers(subject)
        assert staged in (old, [new]), count
        assert aliased in (old, [new]), count
        version = production(subject)
        run = [version.run] if version else []
        assert run == staged, count
        assert seen_by_readers(subject) == (run, run), count
        assert all(change.outcome != "open" for change in history(subject)), count
        if not died:
            assert run == [new]
        # The same command again ends as if nothing had happened.
        if run != [new]:
            rollback(subject, "again") if action == "rollback" else promote(second, "again")
        assert in_production(subject) == new, count
        assert not repair(subject)
        count += 1
    # Lock, intent, stage, alias, outcome, release.
    assert count == 7


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_death_while_mending_is_mended(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = f"mend-{before}".lower()
    two_versions(subject)
    count, died = 0, True
    while died:
        promote(candidate(subject, f"{subject}_1"), "the first")
        with monkeypatch.context() as patch:
            die_at(patch, 2, before=False)  # the stage is set, the alias is not
            with pytest.raises(Death):
                promote(candidate(subject, f"{subject}_2"), "better")
        assert seen_by_readers(subject) == ([f"{subject}_2"], [f"{subject}_1"])
        let_lock_expire(subject)
        with monkeypatch.context() as patch:
            has_died = die_at(patch, count, before=before)
            with suppress(Death):
                production(subject)
            died = has_died()
        let_lock_expire(subject)
        assert seen_by_readers(subject)[0] == [f"{subject}_2"]
        assert in_production(subject) == f"{subject}_2"
        assert changes(subject)[-1] == ("promote", "1", "2", "done")
        count += 1
    assert count > 4


def test_intent_that_was_cut_off_before_the_stage_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    two_versions("asp")
    promote(candidate("asp", "asp_1"), "the first")
    with monkeypatch.context() as patch:
        die_at(patch, 1, before=False)
        with pytest.raises(Death):
            promote(candidate("asp", "asp_2"), "better")
    let_lock_expire("asp")
    assert in_production("asp") == "asp_1"
    assert changes("asp")[-1] == ("promote", "1", "2", "abandoned")
    with pytest.raises(PromotionError):
        rollback("asp", "what never was in production is no version to go back from")


def test_lock_is_exclusive_between_threads_and_may_be_nested(short_lease: None) -> None:
    inside: list[str] = []

    def other() -> None:
        with exclusive("bee", wait_s=60.0):
            inside.append("other")

    with exclusive("bee"):
        with exclusive("bee"):
            thread = threading.Thread(target=other)
            thread.start()
        with pytest.raises(LockError, match="bee: its production version is being changed"):
            in_thread(lambda: exclusive("bee", wait_s=0.1).__enter__())
        # Longer than the lease: it is renewed.
        time.sleep(1.5 * lock.LEASE_S)
        inside.append("first")
    thread.join()
    assert inside == ["first", "other"]


@step(enable_cache=False)
def publish_and_perhaps_fail(subject: str, fail: bool) -> None:
    add_version(subject, get_step_context().pipeline_run.name)
    if fail:
        raise RuntimeError("after publishing")


@pipeline(enable_cache=False)
def publishing(subject: str, fail: bool) -> None:
    publish_and_perhaps_fail(subject, fail)


@pytest.mark.parametrize("fail", [False, True])
def test_only_a_finished_run_is_a_candidate(fail: bool) -> None:
    subject = "sow" if fail else "ewe"
    set_custom_source_root(str(ROOT))
    try:
        publishing.with_options(run_name=f"{subject}_run")(subject, fail)
    except RuntimeError as error:
        assert fail, error
    finally:
        set_custom_source_root(None)
    if not fail:
        assert candidate(subject, f"{subject}_run").run == f"{subject}_run"
        return
    with pytest.raises(PromotionError, match="sow_run: this run is failed, not completed"):
        candidate(subject, "sow_run")


def in_thread(call: Callable[[], object]) -> None:
    """Call something as another thread would, and raise here what it raised there."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def test_a_release_whose_answer_was_lost_is_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZenML's client asks again and then finds nothing to delete; a server that is away lets the lock end by itself."""
    delete = Client.delete_model

    def twice(self: Client, *arguments: Any) -> None:
        delete(self, *arguments)
        delete(self, *arguments)

    monkeypatch.setattr(Client, "delete_model", twice)
    with exclusive("eft"):
        pass
    assert not Client().list_models(name="equals:lock.dreambooth3d-eft").items
    monkeypatch.setattr(Client, "delete_model", lambda self, *arguments: 1 / 0)
    with exclusive("eft"):
        pass


def test_lost_lock_is_one_clear_error_and_writes_nothing(short_lease: None, monkeypatch: pytest.MonkeyPatch) -> None:
    two_versions("emu")
    version = candidate("emu", "emu_1")
    monkeypatch.setattr(lock, "RENEW_S", 60.0)

    def take_and_leave() -> None:
        with exclusive("emu"):
            pass

    with pytest.raises(LockError, match="emu: the lock on its production version was lost to another process"):
        with exclusive("emu"):
            # Another takes over what it has to think dead, and leaves again.
            time.sleep(1.1 * lock.LEASE_S)
            in_thread(take_and_leave)
            promote(version, "too late")
    assert seen_by_readers("emu") == ([], [])


def test_lock_of_a_dead_holder_expires(short_lease: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        die_at(patch, 0, before=False)
        with pytest.raises(Death):
            exclusive("ant").__enter__()
    with pytest.raises(LockError, match="ant: its production version is being changed by default on"):
        exclusive("ant", wait_s=0.1).__enter__()
    start = time.monotonic()
    with exclusive("ant"):
        assert time.monotonic() - start > 0.5


PROMOTE = """
import os, sys, time
from pathlib import Path
import operations.registry.lock as lock
from operations.registry.promotion import candidate, production, promote
from zenml.client import Client
subject, run, folder, mode = sys.argv[1:]
version = candidate(subject, run)
Path(folder, run).touch()
while len(os.listdir(folder)) < (1 if mode == "die" else 2):
    time.sleep(0.005)
if mode == "die":
    lock.LEASE_S, lock.RENEW_S, lock.CLOCK_SKEW_S = 5.0, 1.0, 0.0
    update = Client.update_model_version
    Client.update_model_version = lambda *args, **kwargs: (update(*args, **kwargs), os._exit(9))
promote(version, f"by process {os.getpid()}")
seen = production(subject)
print(seen.number)
"""


def start(variables: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROMOTE, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def test_two_processes_promote_one_after_the_other(variables: dict[str, str], tmp_path: Path) -> None:
    two_versions("pig")
    promote(candidate("pig", "pig_1"), "the first")
    add_version("pig", "pig_3")
    processes = [start(variables, "pig", run, str(tmp_path), "live") for run in ("pig_2", "pig_3")]
    seen = []
    while any(process.poll() is None for process in processes):
        staged, _ = seen_by_readers("pig")
        seen.append(len(staged))
        time.sleep(0.05)
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
    assert set(seen) == {1}
    final = in_production("pig")
    # Each started from what the other had left.
    first, second = changes("pig")[1:]
    assert first[1:] == ("1", second[1], "done")
    assert second[3] == "done"
    assert final == f"pig_{second[2]}"
    assert {first[2], second[2]} == {"2", "3"}


def test_process_that_dies_between_the_registries_is_mended_by_the_next(
    variables: dict[str, str], tmp_path: Path
) -> None:
    two_versions("doe")
    promote(candidate("doe", "doe_1"), "the first")
    process = start(variables, "doe", "doe_2", str(tmp_path), "die")
    _, errors = process.communicate()
    assert process.returncode == 9, errors[-2000:]
    assert seen_by_readers("doe") == (["doe_2"], ["doe_1"])
    # Its lease was 5 s; with its end the lock is free, though the reader's own lease is longer.
    assert in_production("doe") == "doe_2"
    assert changes("doe")[-1] == ("promote", "1", "2", "done")


def test_run_that_was_cut_off_while_publishing_is_no_candidate() -> None:
    add_version("eel", "eel_1", in_mlflow=False)
    with pytest.raises(PromotionError, match="eel: version 1 is not complete in both registries") as error:
        candidate("eel", "eel_1")
    assert str(error.value).count("\n") == 0
    with pytest.raises(RunNotFoundError, match="eel_9: this run registered no version of eel"):
        candidate("eel", "eel_9")


def test_production_version_that_lost_its_mlflow_entry_is_told_and_rolled_back() -> None:
    two_versions("jay")
    promote(candidate("jay", "jay_1"), "the first")
    promote(candidate("jay", "jay_2"), "better")
    rows.client().delete_model_version(model_name("jay"), "2")
    with pytest.raises(PromotionError, match="jay: version 2 is in production, but its entry in MLflow is gone"):
        production("jay")
    assert rollback("jay", "its entry is gone").run == in_production("jay") == "jay_1"


def test_commands() -> None:
    from dreambooth3d.cli.main import app

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["production", *arguments])
        return result.exit_code, result.stdout, result.stderr

    two_versions("gnu")
    assert run("show", "gnu")[:2] == (0, "gnu: no version is in production.\n")
    assert run("promote", "gnu_1", "--reason", "the first")[0] == 0
    code, output, _ = run("promote", "gnu_2")
    assert (code, output) == (0, "gnu: version 2 (gnu_2) is now in production, instead of version 1 (gnu_1).\n")
    assert "in production already" in run("promote", "gnu_2")[1]
    shown = json.loads(run("show", "gnu", "--json")[1])
    assert (shown["number"], shown["run"], shown["metrics"]) == ("2", "gnu_2", {"evaluate/psnr_fg": 12.0})
    assert "version 2 of run gnu_2" in run("show", "gnu")[1]
    assert shown in json.loads(run("show", "--json")[1])
    assert "gnu_2" in run("show")[1]
    assert run("rollback", "gnu", "--reason", "worse")[1] == "gnu: version 1 (gnu_1) is in production again.\n"
    entries = json.loads(run("history", "gnu", "--json")[1])
    assert [(entry["action"], entry["from"], entry["to"], entry["reason"]) for entry in entries][::2] == [
        ("promote", "", "1", "the first"),
        ("rollback", "2", "1", "worse"),
    ]
    assert "rollback" in run("history", "gnu")[1]
    assert in_production("gnu") == "gnu_1"


@pytest.mark.parametrize(
    "arguments", [("show", "nosuch"), ("promote", "nosuch"), ("rollback", "nosuch"), ("history", "nosuch")]
)
def test_unknown_names_are_one_sentence(arguments: tuple[str, ...]) -> None:
    from dreambooth3d.cli.main import app

    result = CliRunner().invoke(app, ["production", *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nosuch: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_people_see_in_mlflow_what_is_production_and_why() -> None:
    """Since when, by whom and why, with both versions of each change."""
    for number, run in enumerate(("okapi_1", "okapi_2")):
        add_version("okapi", run, psnr_fg=20.0 + number)
    promote(candidate("okapi", "okapi_1"), "the first")
    promote(candidate("okapi", "okapi_2"), "better legs")
    client, name = rows.client(), model_name("okapi")

    def seen(version: str) -> tuple[str, ...]:
        tags = client.get_model_version(name, version).tags
        return tags["stage"], tags["stage.reason"]

    assert (seen("1"), seen("2")) == (("archived", "better legs"), ("production", "better legs"))
    assert history("okapi")[-1].time == client.get_model_version(name, "2").tags["stage.since"]
    assert "psnr\\_fg 21 dB" in client.get_model_version(name, "2").description
    assert "`production`" in client.get_registered_model(name).description
    rollback("okapi", "worse ears")
    assert (seen("1"), seen("2")) == (("production", "worse ears"), ("archived", "worse ears"))


def test_a_registry_that_takes_no_tags_keeps_nobody_from_promoting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_version("hoopoe", "hoopoe_1")

    def away(*_: object) -> None:
        raise ConnectionError("no route to the tracker")

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", away)
    promote(candidate("hoopoe", "hoopoe_1"), "the first")
    assert seen_by_readers("hoopoe") == (["hoopoe_1"], ["hoopoe_1"])
    assert [record.message for record in caplog.records if "did not take the tags" in record.message]
