"""Finished runs as rows of one MLflow experiment, in which methods, subjects and seeds can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from benchmarks.quality.results import Results

EXPERIMENT = "benchmark-quality"
KEY = "benchmark.key"


def track(table: str, finished: Iterable[dict[str, Any]], results: Results, uri: str) -> int:
    """Log the runs that the experiment does not have yet.

    Args:
        table: such as `main`.
        finished: as `Results.load` returns them.
        uri: of the MLflow store.

    Returns:
        How many were added.
    """
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        client.create_experiment(EXPERIMENT, _artifact_location(uri))
    experiment = mlflow.set_experiment(EXPERIMENT)
    rows = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=5000)
    known = {row.data.tags.get(KEY) for row in rows}
    added = 0
    for run in finished:
        name = f"{run['method']}-{run['subject']}-{run['seed']}"
        key = f"{table}/{name}@{run['commit']}"
        if key not in known:
            _log(run, name, {KEY: key, "table": table}, results.folder / f"{name}.webp")
            added += 1
    return added


def _artifact_location(uri: str) -> str | None:
    """Beside a local database, where MLflow would take the current directory; else where the server wants it."""
    database = uri.removeprefix("sqlite:///")
    return None if database == uri else (Path(database).absolute().parent / "mlruns").as_uri()


def _log(run: dict[str, Any], name: str, tags: dict[str, str], picture: Path) -> None:
    about = {key: run[key] for key in ("method", "subject", "seed", "commit", "machine", "date")}
    with mlflow.start_run(run_name=name, tags=tags):
        mlflow.log_params(about | {"overrides": " ".join(run["overrides"]), **_texts(run["notes"])})
        mlflow.log_metrics(run["metrics"] | _numbers(run["notes"]))
        mlflow.log_metrics({f"seconds/{stage}": value for stage, value in run["seconds"].items()})
        mlflow.log_metrics({f"peak_mib/{stage}": value for stage, value in run["peak_mib"].items()})
        mlflow.log_artifact(str(picture), "views")


def _numbers(notes: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in notes.items() if isinstance(value, int | float)}


def _texts(notes: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in notes.items() if isinstance(value, str)}
