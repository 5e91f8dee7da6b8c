"""Runs as their rows in MLflow tell them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from dreambooth3d import environment
from dreambooth3d.errors import ConfigError, RunNotFoundError

if TYPE_CHECKING:
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

EXPERIMENT = "dreambooth3d"
RUN_TAG = "zenml.pipeline_run"


def tracking_uri() -> str:
    """Where the active stack's MLflow rows are.

    Raises:
        ConfigError: the stack has no tracker.
    """
    return _tracker().get_tracking_uri()


def client() -> MlflowClient:
    """A client of the active stack's MLflow, signed in with the login that the stack names.

    Raises:
        ConfigError: the stack has no tracker.
    """
    tracker = _tracker()
    # MLflow takes a login from the environment only; in the process of a step ZenML has set the same.
    tracker.configure_mlflow()
    uri = tracker.get_tracking_uri()
    return MlflowClient(uri, registry_uri=uri)


def _tracker() -> MLFlowExperimentTracker:
    from zenml.client import Client

    tracker = Client().active_stack.experiment_tracker
    if tracker is None:
        raise ConfigError(
            "The active ZenML stack has no MLflow tracker. Activate one that has (`zenml stack set NAME`), or run "
            "`dreambooth3d setup`."
        )
    return tracker


def list_rows(limit: int = 100) -> list[Run]:
    """The rows, newest first."""
    mlflow = client()
    experiments = [found.experiment_id for found in mlflow.search_experiments() if found.name.startswith(EXPERIMENT)]
    if not experiments:
        return []
    order = ["attributes.start_time DESC"]
    return list(mlflow.search_runs(experiments, "", ViewType.ACTIVE_ONLY, limit, order))


def find_row(name: str) -> Run:
    """A row by its name, its id or the start of either; `latest` is the newest.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    rows = list_rows(limit=1000)
    if name == "latest" and rows:
        return rows[0]
    exact = [row for row in rows if name in (row_name(row), row.info.run_id)]
    matches = exact or [row for row in rows if row_name(row).startswith(name) or row.info.run_id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunNotFoundError(f"{name}: {len(matches)} runs answer to this. Give more of the name.")
    known = ", ".join(row_name(row) for row in rows[:3]) or "none yet: start one with `dreambooth3d train`"
    raise RunNotFoundError(f"{name}: there is no such run. The newest runs are {known}.")


def row_name(row: Run) -> str:
    """The pipeline run's name."""
    return str(row.data.tags.get(RUN_TAG) or row.info.run_name)


def status_of(row: Run) -> str:
    """completed, interrupted, failed or running."""
    by_mlflow = {"FINISHED": "completed", "FAILED": "failed", "KILLED": "failed"}.get(row.info.status, "running")
    tagged = row.data.tags.get("status")
    # Between two steps MLflow calls an unfinished row FINISHED; publish, the last step, sets the tag.
    if by_mlflow == "completed" and tagged is None:
        return "failed" if _failed_in_zenml(row) else "running"
    return tagged or by_mlflow


def _failed_in_zenml(row: Run) -> bool:
    from zenml.client import Client

    try:
        return not str(Client().get_pipeline_run(row_name(row)).status).startswith(("running", "initializ"))
    except KeyError:
        return True


def duration_of(row: Run) -> float:
    """Seconds from the pipeline run's start to its end, by ZenML, or else by MLflow."""
    from zenml.client import Client

    try:
        run = Client().get_pipeline_run(row_name(row))
        if run.start_time and run.end_time:
            return (run.end_time - run.start_time).total_seconds()
    except KeyError:
        pass  # deleted in ZenML
    return ((row.info.end_time or row.info.start_time) - row.info.start_time) / 1000


def outputs_folder(name: str) -> Path:
    """Where a run's results are copied to."""
    return environment.home() / "outputs" / name


def artifacts_of(row: Run) -> dict[str, str]:
    """Where a run's results are, by what they are, those gone left out; `bundle` is their folder in a remote store."""
    name = row_name(row)
    uri = _index(row).get("bundle", "/nonexistent")
    bundle = Path(uri)
    copied = outputs_folder(name)
    names = {
        "asset": "asset.glb",
        "turntable": "turntable.mp4",
        "page": "asset.html",
        "frames": "frames",
        "cameras": "cameras.json",
        "report": "report.json",
        "views": "views.csv",
        "config": "config.yaml",
        "contexts": "contexts",
    }
    paths = {"bundle": uri} if "://" in uri else {}
    for what, file in names.items():
        found = [folder / file for folder in (copied, bundle) if (folder / file).exists()]
        if found:
            paths[what] = str(found[0])
    return paths


def _index(row: Run) -> Mapping[str, str]:
    import mlflow
    from mlflow.exceptions import MlflowException

    name = "run_index.json"
    try:
        # Asked for a file that is not on S3, MLflow's server fails, and its client tries again for minutes.
        if name not in {entry.path for entry in mlflow.artifacts.list_artifacts(run_id=row.info.run_id)}:
            return {}
        path = mlflow.artifacts.download_artifacts(f"{row.info.artifact_uri}/{name}")
        return json.loads(Path(path).read_text())
    except (MlflowException, OSError):
        return {}


def describe(row: Run) -> dict[str, Any]:
    """One JSON-ready object: run, status, duration_s, metrics, params, tags, artifacts."""
    tags = {key: value for key, value in row.data.tags.items() if not key.startswith("mlflow.")}
    return {
        "run": row_name(row),
        "status": status_of(row),
        "duration_s": round(duration_of(row), 2),
        "metrics": dict(sorted(row.data.metrics.items())),
        "params": dict(sorted(row.data.params.items())),
        "tags": dict(sorted(tags.items())),
        "artifacts": artifacts_of(row),
    }


def brief(row: Run) -> dict[str, Any]:
    """The line of a list: run, subject, preset, status, and three figures."""
    metrics, tags = row.data.metrics, row.data.tags
    figures = {name: metrics.get(f"evaluate/{name}") for name in ("psnr", "psnr_fg", "clip_i", "r_precision")}
    started = row.info.start_time / 1000
    names = {"run": row_name(row), "subject": tags.get("subject", ""), "preset": tags.get("preset", "")}
    return {**names, "status": status_of(row), "started": started, **figures}


def compare(rows: Iterable[Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """Metrics side by side, and the parameters that differ, each by key and then by run."""
    rows = list(rows)
    shown = [key for row in rows for key in row.data.metrics]
    metrics = {key for key in shown if key.startswith(("evaluate/", "evaluate_context_")) or key.endswith("/seconds")}
    params = {key for row in rows for key in row.data.params}
    table = {key: {row_name(row): row.data.params.get(key) for row in rows} for key in sorted(params)}
    return {
        "metrics": {key: {row_name(row): row.data.metrics.get(key) for row in rows} for key in sorted(metrics)},
        "params": {key: values for key, values in table.items() if len(set(values.values())) > 1},
    }
