"""Runs as their rows in MLflow tell them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from dreambooth3d import environment
from dreambooth3d.errors import ConfigError, RunNotFoundError
from operations.records import status
from operations.records.status import Status, pipeline_runs

if TYPE_CHECKING:
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
    from zenml.models import PipelineRunResponse

EXPERIMENT = "dreambooth3d"
RUN_TAG = "zenml.pipeline_run"
_ROWS_PER_CALL = 1000


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
    return cast("MLFlowExperimentTracker", tracker)


def open_row(
    experiment: str, name: str, tracker: MLFlowExperimentTracker | None = None, start: int | None = None
) -> str:
    """Make a pipeline run's row MLflow's active run, and make it where there is none.

    As ZenML does when a step begins, but for one thing: ZenML makes a second row where the tracker answers the search,
    and then no more.

    Args:
        experiment: in which the row is.
        name: of the run.
        tracker: of the stack; default the active one's.
        start: of a new row, in milliseconds since 1970; default now.

    Returns:
        Its id.
    """
    import mlflow

    tracker = tracker or _tracker()
    tracker.configure_mlflow()
    place = tracker._set_active_experiment(experiment).experiment_id
    own, tags = MlflowClient(), tracker._get_internal_tags()
    condition = f'tags.mlflow.runName = "{name}"'
    found = own.search_runs([place], condition, ViewType.ACTIVE_ONLY, 1, ["attributes.start_time ASC"])
    if start is not None and not found:
        found = [own.create_run(place, start, tags, name)]
    tracker._clear_inherited_run_environment(run_id=None)
    if found:
        return str(mlflow.start_run(run_id=found[0].info.run_id, tags=tags).info.run_id)
    return str(mlflow.start_run(run_name=name, experiment_id=place, tags=tags).info.run_id)


def experiment_of(run: PipelineRunResponse) -> str:
    """The experiment in which a pipeline run's row is, or is to be."""
    for name, settings in run.config.settings.items():
        if name.startswith("experiment_tracker") and (found := settings.model_dump().get("experiment_name")):
            return str(found)
    return run.pipeline.name if run.pipeline else EXPERIMENT


def list_rows(limit: int | None = 100) -> list[Run]:
    """The rows, newest first; all of them without a limit."""
    mlflow = client()
    experiments = [found.experiment_id for found in mlflow.search_experiments() if found.name.startswith(EXPERIMENT)]
    found: list[Run] = []
    token = None
    while experiments:
        size = _ROWS_PER_CALL if limit is None else limit
        page = mlflow.search_runs(experiments, "", ViewType.ACTIVE_ONLY, size, ["attributes.start_time DESC"], token)
        found += page
        token = page.token
        if not token or limit is not None:
            break
    return found


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


def status_of(row: Run) -> Status:
    """How the run of a row stands."""
    return statuses([row])[row.info.run_id]


def statuses(rows: Sequence[Run]) -> dict[str, Status]:
    """How the runs of rows stand, by the rows' ids; ZenML is asked for all of them at once."""
    runs = pipeline_runs(map(row_name, rows))
    return {row.info.run_id: _status(row, runs.get(row_name(row))) for row in rows}


def _status(row: Run, run: PipelineRunResponse | None) -> Status:
    return status.status_of(run.status if run else None, row.info.status, row.data.tags)


def duration_of(row: Run) -> float:
    """Seconds from the pipeline run's start to its end, by ZenML, or else by MLflow."""
    return _duration(row, pipeline_runs([row_name(row)], hydrate=True).get(row_name(row)))


def _duration(row: Run, run: PipelineRunResponse | None) -> float:
    if run and run.start_time and run.end_time:
        return (run.end_time - run.start_time).total_seconds()
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
    from mlflow.artifacts import download_artifacts, list_artifacts
    from mlflow.exceptions import MlflowException

    name = "run_index.json"
    try:
        # Asked for a file that is not on S3, MLflow's server fails, and its client tries again for minutes.
        if name not in {entry.path for entry in list_artifacts(run_id=row.info.run_id)}:
            return {}
        path = download_artifacts(f"{row.info.artifact_uri}/{name}")
        return json.loads(Path(path).read_text())
    except (MlflowException, OSError):
        return {}


def describe(row: Run) -> dict[str, Any]:
    """One JSON-ready object: run, status, duration_s, metrics, params, tags, artifacts."""
    tags = {key: value for key, value in row.data.tags.items() if not key.startswith("mlflow.")}
    run = pipeline_runs([row_name(row)], hydrate=True).get(row_name(row))
    return {
        "run": row_name(row),
        "status": _status(row, run),
        "duration_s": round(_duration(row, run), 2),
        "metrics": dict(sorted(row.data.metrics.items())),
        "params": dict(sorted(row.data.params.items())),
        "tags": dict(sorted(tags.items())),
        "artifacts": artifacts_of(row),
    }


def briefs(rows: Sequence[Run]) -> list[dict[str, Any]]:
    """The lines of a list: run, subject, preset, status, start, and four figures."""
    stands = statuses(rows)
    return [_brief(row, stands[row.info.run_id]) for row in rows]


def _brief(row: Run, stands: Status) -> dict[str, Any]:
    metrics, tags = row.data.metrics, row.data.tags
    figures = {name: metrics.get(f"evaluate/{name}") for name in ("psnr", "psnr_fg", "clip_i", "r_precision")}
    started = row.info.start_time / 1000
    names = {"run": row_name(row), "subject": tags.get("subject", ""), "preset": tags.get("preset", "")}
    return {**names, "status": stands, "started": started, **figures}


def compare(rows: Iterable[Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """Status and metrics side by side, and the parameters that differ, each by key and then by run."""
    rows = list(rows)
    stands = statuses(rows)
    shown = [key for row in rows for key in row.data.metrics]
    measured = ("evaluate/", "evaluate_context_", "evaluate_prompt/")
    metrics = {key for key in shown if key.startswith(measured) or key.endswith("/seconds")}
    params = {key for row in rows for key in row.data.params}
    table = {key: {row_name(row): row.data.params.get(key) for row in rows} for key in sorted(params)}
    return {
        "runs": {"status": {row_name(row): stands[row.info.run_id] for row in rows}},
        "metrics": {key: {row_name(row): row.data.metrics.get(key) for row in rows} for key in sorted(metrics)},
        "params": {key: values for key, values in table.items() if len(set(values.values())) > 1},
    }
