"""Runs as their rows in MLflow tell them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import unquote, urlsplit

from dreambooth3d import environment
from dreambooth3d.errors import ConfigError, RunNotFoundError
from operations.records.row import Row, row_name
from operations.records.status import Status, pipeline_runs, status_of_row

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
    from zenml.models import PipelineRunResponse

EXPERIMENT = "dreambooth3d"
_ROWS_PER_CALL = 1000
_Row = TypeVar("_Row", bound=Row)


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
    from mlflow.tracking import MlflowClient

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
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

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
    from mlflow.entities import ViewType

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
    return the_one(name, lambda: list_rows(limit=3), lambda: _named(name))


def _named(name: str) -> list[Run]:
    rows = list_rows(limit=1000)
    exact = [row for row in rows if name in (row_name(row), row.info.run_id)]
    return exact or [row for row in rows if row_name(row).startswith(name) or row.info.run_id.startswith(name)]


def the_one(name: str, newest: Callable[[], Sequence[_Row]], named: Callable[[], Sequence[_Row]]) -> _Row:
    """The row that answers to a name.

    Args:
        name: of it, or its id, or the start of either, or `latest`.
        newest: gives some rows, the newest first.
        named: gives those that answer to the name.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    if name == "latest" and (found := newest()):
        return found[0]
    matches = named()
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunNotFoundError(f"{name}: {len(matches)} runs answer to this. Give more of the name.")
    known = ", ".join(map(row_name, newest()[:3])) or "none yet: start one with `dreambooth3d train`"
    raise RunNotFoundError(f"{name}: there is no such run. The newest runs are {known}.")


def status_of(row: Run) -> Status:
    """How the run of a row stands."""
    run = pipeline_runs([row_name(row)]).get(row_name(row))
    return status_of_row(run.status if run else None, row)


def duration_of(row: Run) -> float:
    """Seconds from the pipeline run's start to its end, by ZenML, or else by MLflow."""
    run = pipeline_runs([row_name(row)], hydrate=True).get(row_name(row))
    return seconds_of(row, seconds_between(run) if run else None)


def seconds_between(run: PipelineRunResponse) -> float | None:
    """Seconds from a pipeline run's start to its end, None where either is not known."""
    return (run.end_time - run.start_time).total_seconds() if run.start_time and run.end_time else None


def seconds_of(row: Row, known: float | None) -> float:
    """Seconds that a run took: what ZenML knows, or else what its row says."""
    if known is not None:
        return known
    return ((row.info.end_time or row.info.start_time) - row.info.start_time) / 1000


def outputs_folder(name: str) -> Path:
    """Where a run's results are copied to."""
    return environment.home() / "outputs" / name


def artifacts_of(row: Row) -> dict[str, str]:
    """Where a run's results are, by what they are, those gone left out; `bundle` is their folder in a remote store."""
    name = row_name(row)
    uri = _index(row).get("bundle", "/nonexistent")
    bundle = Path(uri)
    copied = outputs_folder(name)
    names = {
        "asset": "asset.glb",
        "turntable": "turntable.mp4",
        "page": "asset.html",
        "run_report": "report.html",
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


def _index(row: Row) -> Mapping[str, str]:
    name = "run_index.json"
    place = urlsplit(str(row.info.artifact_uri or ""))
    if place.scheme in ("", "file") and not place.netloc:
        file = Path(unquote(place.path) if place.scheme else str(row.info.artifact_uri), name)
        return json.loads(file.read_text()) if file.is_file() else {}
    from mlflow.artifacts import download_artifacts, list_artifacts
    from mlflow.exceptions import MlflowException

    try:
        # Asked for a file that is not on S3, MLflow's server fails, and its client tries again for minutes.
        if name not in {entry.path for entry in list_artifacts(run_id=row.info.run_id)}:
            return {}
        path = download_artifacts(f"{row.info.artifact_uri}/{name}")
        return json.loads(Path(path).read_text())
    except (MlflowException, OSError):
        return {}
