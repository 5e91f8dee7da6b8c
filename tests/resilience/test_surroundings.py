"""The real pipeline where its surroundings fail: no home, no shared memory, a locked database, another machine."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.resilience.kills import Interruption, Untouched
from tests.resilience.shim import AVAILABLE, no_shared_memory, read_only_disk

pytestmark = pytest.mark.slow
LOCKED_FOR_S = 300.0
"""How long a command may wait for a database that stays locked."""


@pytest.mark.skipif(not AVAILABLE, reason="needs Linux and a C compiler")
def test_a_home_that_is_read_only_and_no_shared_memory_change_nothing(untouched: Untouched) -> None:
    workshop = untouched.workshop
    workshop.reset()
    result = workshop.finish(**read_only_disk(workshop.product.home) | no_shared_memory())
    assert untouched.result.differences(result) == []


def test_a_step_that_goes_on_on_another_machine_starts_anew_and_finished_ones_stay(untouched: Untouched) -> None:
    """The work folder is local: of what was killed, the state of the one unfinished step is lost."""
    workshop = untouched.workshop
    workshop.reset()
    assert workshop.interrupt(Interruption("init_nerf", 0.5), untouched.usual) is not None
    shutil.rmtree(workshop.product.root / ".dreambooth3d" / "work")
    result = workshop.finish()
    assert untouched.result.differences(result) == []
    for step in ("validate_photos", "finetune_dreambooth", "select_checkpoints"):
        assert f"Using cached version of step {step}." in workshop.said()


def test_a_locked_store_of_zenml_s_is_one_sentence_and_costs_nothing(untouched: Untouched) -> None:
    workshop = untouched.workshop
    workshop.reset()
    (database,) = (workshop.product.root / ".zenconfig").rglob("zenml.db")
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with workshop.command() as process:
            code = process.wait(LOCKED_FOR_S)
    said = workshop.said()
    assert code == 1 and "Traceback" not in said, said[-3000:]
    assert said.strip().splitlines()[-1].startswith("Error: ") and "locked by another process" in said
    assert untouched.result.differences(workshop.finish()) == []
