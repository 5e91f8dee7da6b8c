"""What is shown of runs: lists, single runs and comparisons, as objects that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from operations.records.keys import COMPARED, current
from operations.records.reading import Reader
from operations.records.row import KnownRun, Row, row_name
from operations.records.rows import artifacts_of, seconds_of
from operations.records.status import TAG, Status, status_of_row

FIGURES = ("psnr", "psnr_fg", "clip_i", "r_precision")
Shown = Status | Literal["dead", "incomplete"]
"""A run that ZenML takes for running, and whose process is gone, is dead until `runs clean` marks it. One that ended
well is incomplete as long as its row is: MLflow was away, and `runs complete` completes it."""


def _shown(row: Row, run: KnownRun | None) -> Shown:
    status = status_of_row(run.status if run else None, row)
    if run is None:
        return status
    # A pipeline of the user's own need not publish; those of the presets all do.
    if status == "completed" and TAG not in row.data.tags and _origin(row, run)["preset"]:
        return "incomplete"
    return "dead" if status == "running" and run.gone else status


def briefs(reader: Reader, limit: int) -> list[dict[str, Any]]:
    """The lines of a list, newest first: run, subject, preset, status, start, and four figures."""
    found = reader.newest(limit)
    known = reader.known_runs(found)
    return [_brief(row, known.get(row_name(row))) for row in found]


def _brief(row: Row, run: KnownRun | None) -> dict[str, Any]:
    metrics = current(row.data.metrics)
    figures = {name: metrics.get(f"evaluate/{name}") for name in FIGURES}
    started = row.info.start_time / 1000
    return {"run": row_name(row), **_origin(row, run), "status": _shown(row, run), "started": started, **figures}


def _head(row: Row, run: KnownRun | None) -> dict[str, Any]:
    """How a run stands, what it was for, and how long it took."""
    seconds = round(seconds_of(row, run.seconds if run else None), 2)
    return {"status": _shown(row, run), **_origin(row, run), "duration_s": seconds}


def _origin(row: Row, run: KnownRun | None) -> dict[str, str]:
    """Subject and preset: a run that failed has not come to write them into its row."""
    tags = row.data.tags
    known = {"subject": run.subject, "preset": run.preset} if run else {}
    return {name: tags.get(name) or known.get(name, "") for name in ("subject", "preset")}


def describe(reader: Reader, name: str) -> dict[str, Any]:
    """One run, by its name or `latest`: run, status, subject, preset, duration_s, metrics, params, tags, artifacts.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    row = reader.find(name)
    run = reader.known_runs([row], times=True).get(row_name(row))
    tags = {key: value for key, value in row.data.tags.items() if not key.startswith("mlflow.")}
    return {
        "run": row_name(row),
        **_head(row, run),
        "metrics": dict(sorted(current(row.data.metrics).items())),
        "params": dict(sorted(row.data.params.items())),
        "tags": dict(sorted(tags.items())),
        "artifacts": artifacts_of(row),
    }


def compare(reader: Reader, names: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Origin, status and metrics side by side, and the parameters that differ, each by key and then by run.

    Raises:
        RunNotFoundError: there is no run of a name, or more than one.
    """
    found = {row_name(row): row for row in map(reader.find, names)}
    known = reader.known_runs(list(found.values()), times=True)
    runs = {name: _head(row, known.get(name)) for name, row in found.items()}
    measured = {name: current(row.data.metrics) for name, row in found.items()}
    metrics = {key for values in measured.values() for key in values if key.startswith(COMPARED)}
    params = {key for row in found.values() for key in row.data.params}
    table = {key: {name: row.data.params.get(key) for name, row in found.items()} for key in sorted(params)}
    return {
        "runs": {key: {name: head[key] for name, head in runs.items()} for key in next(iter(runs.values()))},
        "metrics": {key: {name: measured[name].get(key) for name in found} for key in sorted(metrics)},
        "params": {key: values for key, values in table.items() if len(set(values.values())) > 1},
    }
