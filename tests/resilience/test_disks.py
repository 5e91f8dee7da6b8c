"""The real pipeline on disks that run full or turn read-only: one sentence, and later the same command ends well."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.resilience.kills import Untouched, Workshop
from tests.resilience.shim import AVAILABLE, full_disk, read_only_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AVAILABLE, reason="needs Linux and a C compiler"),
]


def work(workshop: Workshop) -> Path:
    """Resumable states, checkpoints in the making."""
    return workshop.product.root / ".dreambooth3d" / "work"


def store(workshop: Workshop) -> Path:
    """Artifacts, among them MLflow's, and its database."""
    (folder,) = {path.parent for path in (workshop.product.root / ".zenconfig").rglob("mlflow.db")}
    return folder


def rows(workshop: Workshop) -> Path:
    """MLflow's database alone."""
    return store(workshop) / "mlflow.db"


def zenml(workshop: Workshop) -> Path:
    """ZenML's database."""
    return workshop.product.root / ".zenconfig" / "local_stores" / "default_zen_store"


def temporary(workshop: Workshop) -> Path:
    """Where artifacts are put together."""
    return workshop.temporary


def outputs(workshop: Workshop) -> Path:
    """What a person looks at."""
    return workshop.product.root / "outputs"


Variables = Callable[[Path, int], dict[str, str]]
Place = Callable[[Workshop], Path]
CASES: tuple[tuple[Variables, Place, int], ...] = (
    (full_disk, temporary, 150_000), (full_disk, zenml, 300_000), (full_disk, work, 2_000_000),
    (full_disk, store, 1_500_000), (read_only_disk, store, 200_000), (full_disk, rows, 20_000),
    (full_disk, outputs, 30_000),
)  # fmt: skip
"""Disks, and how many bytes of a command's find room there; in the order in which the steps meet them."""


def test_a_run_on_disks_that_run_full_ends_as_an_untouched_one(untouched: Untouched) -> None:
    workshop = untouched.workshop
    workshop.reset()
    for make, place, room in CASES:
        variables = make(place(workshop), room)
        with workshop.command(**variables) as process:
            code = process.wait(900)
        said, what = workshop.said(), f"{make.__name__}, {place.__name__}"
        print(f"{what}: exit code {code}: {said.strip().splitlines()[-1]}", flush=True)
        assert code == 1, what
        assert "Traceback" not in said, f"{what}: {said[-3000:]}"
        assert re.search(r"^Error: .*(full|read-?only)", said.strip().splitlines()[-1]), what
        root = workshop.product.root
        assert not [*root.rglob("*.partial*"), *root.rglob(".tmp*")], what
    result = workshop.finish()
    assert untouched.result.differences(result) == []
