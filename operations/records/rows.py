"""Runs as their rows in MLflow tell them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import unquote, urlsplit

from dreambooth3d import environment
from dreambooth3d.errors import ConfigError, RunNotFoundError
from operations.records.row import NAME_TAG, RUN_TAG, Origin, Row, answers_to, begins_as, row_name
from operations.records.status import Status, pipeline_runs, status_of_row, tells_its_end

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
    from zenml.models import PipelineRunResponse

EXPERIMENT = "dreambooth3d"
_ROWS_PER_CALL = 1000
# Or MLflow opens the experiment in its view for language models.
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"
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
    experiment: str, origin: Origin, tracker: MLFlowExperimentTracker | None = None, start: int | None = None
) -> str:
    """Make a pipeline run's row MLflow's active run, and make it where there is none.

    ZenML finds a row by the name that MLflow shows; here the tag with the pipeline run's name tells, so that the shown
    one is for people. ZenML also makes a second row where the tracker answers the search, and then no more.

    Args:
        experiment: in which the row is.
        origin: of the run.
        tracker: of the stack; default the active one's.
        start: of a new row, in milliseconds since 1970; default now.

    Returns:
        Its id.
    """
    import mlflow
    from mlflow.tracking import MlflowClient

    tracker = tracker or _tracker()
    tracker.configure_mlflow()
    own, tags = MlflowClient(), tracker._get_internal_tags()
    found = tracker._set_active_experiment(experiment)
    place = found.experiment_id
    if _KIND_TAG not in found.tags:
        own.set_experiment_tag(place, _KIND_TAG, _KIND)
    row = _row_of(own, place, origin.run)
    if row is None:
        row = own.create_run(place, start, tags | origin.tags(), origin.run).info.run_id
        own.update_run(row, name=origin.shown(row))
    tracker._clear_inherited_run_environment(run_id=None)
    return str(mlflow.start_run(run_id=row, tags=tags).info.run_id)


def row_of_run(run: str) -> Run | None:
    """The first row of the pipeline run of this name, without reading others'; None where there is none."""
    mlflow = client()
    return _first_row(mlflow, _experiments(mlflow), run)


def _row_of(client: MlflowClient, experiment: str, run: str) -> str | None:
    """Id of a pipeline run's first row in an experiment."""
    found = _first_row(client, [experiment], run)
    return None if found is None else str(found.info.run_id)


def _first_row(client: MlflowClient, experiments: list[str], run: str) -> Run | None:
    """A pipeline run's first row, by its tag, or by its name as rows of before have it."""
    from mlflow.entities import ViewType

    for tag in (RUN_TAG, NAME_TAG) if experiments else ():
        condition = f'tags.`{tag}` = "{run}"'
        found = client.search_runs(experiments, condition, ViewType.ACTIVE_ONLY, 1, ["attributes.start_time ASC"])
        if found:
            return found[0]
    return None


def _experiments(client: MlflowClient) -> list[str]:
    """Ids of the product's experiments."""
    return [found.experiment_id for found in client.search_experiments() if found.name.startswith(EXPERIMENT)]


def end_row(run: PipelineRunResponse, status: str) -> None:
    """Say in a run's row that it has ended: MLflow takes one for finished that ends between two steps.

    Args:
        run: that has ended otherwise than well.
        status: FAILED or KILLED; a row that says either, or is complete, stays as it is.
    """
    own = client()
    experiment = own.get_experiment_by_name(experiment_of(run))
    row = _row_of(own, experiment.experiment_id, run.name) if experiment else None
    found = own.get_run(row) if row else None
    if found is not None and not tells_its_end(found.info.status, found.data.tags):
        own.set_terminated(found.info.run_id, status)


def origin_of(run: PipelineRunResponse) -> Origin:
    """What a pipeline run's row says of it."""
    pipeline, model = run.pipeline.name if run.pipeline else "", run.config.model
    return Origin.of(run.name, pipeline, run.config.extra, str(model.name or "") if model else "")


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
    experiments = _experiments(mlflow)
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
    """A row by its run's name, its own, its id or the start of one of these; `latest` is the newest.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    return the_one(name, lambda: list_rows(limit=3), lambda: _named(name))


def _named(name: str) -> list[Run]:
    rows = list_rows(limit=1000)
    return [row for row in rows if answers_to(row, name)] or [row for row in rows if begins_as(row, name)]


def the_one(name: str, newest: Callable[[], Sequence[_Row]], named: Callable[[], Sequence[_Row]]) -> _Row:
    """The row that answers to a name.

    Args:
        name: of its run, its own in MLflow, or its id, or the start of one of these, or `latest`.
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
