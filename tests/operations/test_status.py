"""How a run stands: every combination of what ZenML, MLflow and the tag say, and rows of real runs."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, get_args

import mlflow
import pytest
from zenml.client import Client
from zenml.enums import ExecutionStatus

from operations.records import rows, tables
from operations.records.reading import Reader
from operations.records.status import TAG, Status, pipeline_runs, status_of, tells_its_end
from tests.operations.toy import run_toy

GONE, NO_ROW, SILENT = None, None, None
UNFINISHED = ("initializing", "provisioning", "queued", "running", "retrying", "cancelling", "paused", "resuming",
              "stopping")  # fmt: skip
ENDED_WELL = ("completed", "cached", "skipped")
ENDED_BADLY = ("failed", "cancelled", "stopped", "retried")
ROWS = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED", NO_ROW)
SAID = ("completed", "interrupted", "failed", "a person's own word", SILENT)
# By the row and what the tag says; of a run that ZenML does not know.
WITHOUT_ZENML = {
    ("RUNNING", "completed"): "running", ("RUNNING", "interrupted"): "running", ("RUNNING", "failed"): "running",
    ("RUNNING", "a person's own word"): "running", ("RUNNING", SILENT): "running",
    ("SCHEDULED", "completed"): "running", ("SCHEDULED", "interrupted"): "running", ("SCHEDULED", "failed"): "running",
    ("SCHEDULED", "a person's own word"): "running", ("SCHEDULED", SILENT): "running",
    ("FINISHED", "completed"): "completed", ("FINISHED", "interrupted"): "interrupted",
    ("FINISHED", "failed"): "failed", ("FINISHED", "a person's own word"): "failed", ("FINISHED", SILENT): "failed",
    ("FAILED", "completed"): "failed", ("FAILED", "interrupted"): "failed", ("FAILED", "failed"): "failed",
    ("FAILED", "a person's own word"): "failed", ("FAILED", SILENT): "failed",
    ("KILLED", "completed"): "failed", ("KILLED", "interrupted"): "interrupted", ("KILLED", "failed"): "failed",
    ("KILLED", "a person's own word"): "failed", ("KILLED", SILENT): "failed",
    (NO_ROW, "completed"): "completed", (NO_ROW, "interrupted"): "interrupted", (NO_ROW, "failed"): "failed",
    (NO_ROW, "a person's own word"): "failed", (NO_ROW, SILENT): "failed",
}  # fmt: skip


def tagged(said: str | None) -> dict[str, str]:
    return {"subject": "corgi"} | ({TAG: said} if said else {})


def test_the_table_knows_every_status_of_zenml_and_mlflow() -> None:
    assert {*UNFINISHED, *ENDED_WELL, *ENDED_BADLY} == {f"{status}" for status in ExecutionStatus}
    known = {mlflow.entities.RunStatus.to_string(status) for status in mlflow.entities.RunStatus.all_status()}
    assert {row for row in ROWS if row} == known
    assert WITHOUT_ZENML.keys() == {*product(ROWS, SAID)}
    assert {*WITHOUT_ZENML.values()} == {*get_args(Status)}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("said", SAID)
def test_every_combination(row: str | None, said: str | None) -> None:
    """A failed run is failed and an unfinished one is running, whatever row and tag say."""
    tags = tagged(said)
    for status in UNFINISHED:
        assert status_of(ExecutionStatus(status), row, tags) == "running"
    for status in ENDED_BADLY:
        assert status_of(ExecutionStatus(status), row, tags) == "failed"
    for status in ENDED_WELL:
        known = said if said in ("completed", "interrupted", "failed") else "completed"
        assert status_of(ExecutionStatus(status), row, tags) == known
    assert status_of(GONE, row, tags) == WITHOUT_ZENML[row, said]


@pytest.mark.parametrize("row", [row for row in ROWS if row])
@pytest.mark.parametrize("said", SAID)
def test_a_row_that_tells_its_end_is_not_between_two_steps(row: str, said: str | None) -> None:
    ended = row in ("FAILED", "KILLED") or (row == "FINISHED" and said in ("completed", "interrupted", "failed"))
    assert tells_its_end(row, tagged(said)) == ended


def test_a_row_says_how_its_run_stands_also_when_that_is_gone_in_zenml(home: Path) -> None:
    run = run_toy(seed=31)
    row = rows.find_row(run.name)
    # The toy has no step that would call the row complete; ZenML knows better.
    assert row.info.status == "FINISHED" and TAG not in row.data.tags
    assert rows.status_of(row) == "completed"
    Client().delete_pipeline_run(run.id)
    assert rows.status_of(row) == "failed"
    rows.client().set_tag(row.info.run_id, TAG, "interrupted")
    assert rows.status_of(rows.find_row(run.name)) == "interrupted"


def test_a_list_asks_zenml_once_for_fifty_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = run_toy(seed=31)
    with pytest.raises(Exception):  # noqa: B017  (ZenML chooses the type)
        run_toy(seed=31, fail=True)
    asked: list[str] = []
    ask = Client.list_pipeline_runs

    def counted(self: Client, **options: Any) -> Any:
        asked.append(str(options["name"]))
        return ask(self, **options)

    monkeypatch.setattr(Client, "list_pipeline_runs", counted)
    monkeypatch.setattr(Client, "get_pipeline_run", lambda *_, **__: pytest.fail("a request for one run"))
    listed = tables.briefs(Reader(), limit=2)
    assert [line["status"] for line in listed] == ["failed", "incomplete"] and listed[1]["run"] == good.name
    # At most once more, where rows do not say what their runs were for: they do from the first step on, if our commands
    # started them.
    assert 1 <= len(asked) <= 2
    assert [(line["subject"], line["preset"]) for line in listed] == [("corgi", "tiny")] * 2

    asked.clear()
    names = [good.name, *(f'no such "run", {number}' for number in range(100))]
    assert list(pipeline_runs(names)) == [good.name]
    assert len(asked) == 3


def test_a_comparison_shows_how_the_runs_stand(home: Path) -> None:
    good = run_toy(seed=31)
    with pytest.raises(Exception):  # noqa: B017  (ZenML chooses the type)
        run_toy(seed=31, fail=True)
    bad, _ = rows.list_rows(limit=2)
    # The toy has no step that would call its row complete.
    for said, shown in ((None, "incomplete"), ("completed", "completed"), ("interrupted", "interrupted")):
        if said:
            rows.client().set_tag(rows.find_row(good.name).info.run_id, TAG, said)
        compared = tables.compare(Reader(), [good.name, rows.row_name(bad)])
        assert compared["runs"]["status"] == {good.name: shown, rows.row_name(bad): "failed"}
