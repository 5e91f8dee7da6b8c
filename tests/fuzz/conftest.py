"""Fuzzing: a short form in `make test`, and the long one of `make fuzz`, which writes its counts into a report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.fuzz.outcomes import COUNTS, LONG, report


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that inputs are written to; what is around it, temporary files too, is watched (`outcomes.tried`)."""
    import tempfile

    around = tmp_path / "around"
    for name in ("inside", "temporary", "beside"):
        (around / name).mkdir(parents=True)
    (around / "beside" / "precious.txt").write_text("precious")
    monkeypatch.setattr(tempfile, "tempdir", str(around / "temporary"))
    monkeypatch.chdir(around / "beside")
    return around / "inside"


def pytest_sessionfinish() -> None:
    """Print the counts of the long form, and merge them into the report that is asked for."""
    if not LONG or not COUNTS:
        return
    path = os.environ.get("DREAMBOOTH3D_FUZZ_REPORT")
    values = report(Path(path) if path else None)
    print(f"\n{json.dumps(values)}")
    if path:
        from benchmarks.resilience_report import merge

        merge(Path(path), "fuzz", values)
