"""Publishing a run: its row in MLflow and its version in both registries, from what its steps have stored.

The tracker may be away when a run ends. The results are stored then, and the row is completed later, from the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from zenml.models import PipelineRunResponse

from dreambooth3d.artifacts import AssetBundle, EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.errors import DreamBooth3DError, gist
from operations.records import hooks, note, publishing, rows
from operations.records.checkpoint_models import log_checkpoints
from operations.records.keys import current, metric_key
from operations.records.patience import TrackerAwayError, is_away, patiently
from operations.records.pictures import log_strip
from operations.records.publishing import PUBLISH, SUMMARIZE
from operations.records.status import ENDS, TAG, status_of
from operations.records.summary import log_summary
from operations.records.tracking import active_run_id
from operations.registry.describing import describe_version, description
from operations.registry.registration import register_asset
from operations.registry.reporting import Known, report_if_possible

logger = logging.getLogger(__name__)
INDEX, PAGE = "run_index", "run_report"
"""Outputs of `publish`."""
INCOMPLETE = "incomplete"
"""In a run's index: what kept the tracker from taking its row."""


class IncompleteRowError(DreamBooth3DError):
    """A run has stored all of its results, but the tracker did not take its row."""


@dataclass(frozen=True)
class Published:
    """What `publish` takes."""

    report: EvaluationReport
    bundle: AssetBundle
    asset: RadianceField
    photos: SubjectPhotos
    config: TrainingConfig | CeilingConfig | TextTo3dConfig
    identity: Mapping[str, str]


def publish_run(run: PipelineRunResponse, made: Published, page: str = "") -> dict[str, str]:
    """Write a run's row and register its version; where the tracker stays away, say so in the index.

    Args:
        run: that made it.
        made: what it made.
        page: its report, see `report_on`.

    Returns:
        mlflow_run_id, pipeline_run, subject, bundle, model_version; of a row that is not complete `incomplete` with the
        reason, and empty the id and the version.
    """
    uri = publishing.bundle_uri(publishing.finished_stages(run.id))
    index = {"mlflow_run_id": "", "pipeline_run": run.name, "subject": made.photos.subject, "bundle": uri}
    try:
        return patiently(lambda: index | write_row(run, made, page), run.name)
    except TrackerAwayError as error:
        hooks.incomplete[run.name] = _sentence(run.name, str(error))
        logger.error("%s", hooks.incomplete[run.name])
        return index | {"model_version": "", INCOMPLETE: str(error)}


def report_on(run: PipelineRunResponse, made: Published) -> str:
    """The report of a run that has made all that it should, as HTML; empty, with a warning, where it cannot be made."""
    known = Known(made.photos, made.bundle, made.config.model_dump(mode="json"), made=True)
    return report_if_possible(run, known)


def write_row(run: PipelineRunResponse, made: Published, page: str) -> dict[str, str]:
    """Write all of a run's row, and register its version; may be done again after any part of it was done.

    The row says that it is complete last of all, when nothing more can fail.

    Returns:
        mlflow_run_id and model_version.
    """
    _require_row(run)
    stages = publishing.finished_stages(run.id)
    records = publishing.replay(stages)
    tags = publishing.tags(run, made.photos, records)
    publishing.log_config(made.config)
    if made.photos.images:
        publishing.log_dataset(made.photos)
    uri = publishing.bundle_uri(stages)
    publishing.log_files(made.report, made.bundle, uri)
    publishing.log_report(page)
    shown = log_strip(made.bundle)
    if isinstance(made.config, TrainingConfig):
        publishing.log_contexts(run, stages, made.config.contexts)
    publishing.set_tags(tags)
    version = register_asset(made.asset, uri, made.photos.subject, tags, made.identity, run)
    _describe(run, made, version, tags[TAG], shown)
    index = {
        "mlflow_run_id": active_run_id(),
        "pipeline_run": run.name,
        "subject": made.photos.subject,
        "bundle": uri,
        "model_version": version,
    }
    mlflow.log_dict(index, "run_index.json")
    publishing.set_end(tags)
    return {"mlflow_run_id": index["mlflow_run_id"], "model_version": version}


def _describe(run: PipelineRunResponse, made: Published, version: str, status: str, shown: bool) -> None:
    """What is there to be looked at: description of row and version, checkpoints as logged models; never an error."""
    client, row, origin = MlflowClient(), active_run_id(), rows.origin_of(run)
    figures = {metric_key(made.report.record.name, name): value for name, value in made.report.metrics.items()}
    for describe in (
        lambda: note.write(client, row, note.of_asset(row, run.name, figures, status, shown)),
        lambda: describe_version(client, made.photos.subject, version, description(run.name, row, figures, shown)),
        lambda: log_checkpoints(run, row, origin),
    ):
        try:
            describe()
        except Exception as error:
            if is_away(error):
                raise  # what is away is waited for; the row is completed later
            logger.warning("%s: MLflow did not take a description (%s).", run.name, gist(error))


def summarize_run(run: PipelineRunResponse, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Write the row of a run over many subjects.

    Raises:
        IncompleteRowError: the tracker stays away.
    """

    def write() -> None:
        _require_row(run)
        log_summary(run.name, verdicts)

    try:
        patiently(write, run.name)
    except TrackerAwayError as error:
        raise IncompleteRowError(_sentence(run.name, str(error))) from None


def incompleteness(run: PipelineRunResponse) -> str:
    """What is to be said of a run that ended well while the tracker was away; empty where its row is complete."""
    step = run.steps.get(PUBLISH)
    if step is None or not step.outputs:
        return ""
    index = step.outputs[INDEX][0].load() if INDEX in step.outputs else {}
    return _sentence(run.name, index[INCOMPLETE]) if index.get(INCOMPLETE) else ""


def require_complete_row(run: PipelineRunResponse) -> None:
    """Let nobody take a run for published whose row is not complete.

    Raises:
        IncompleteRowError: it is not.
    """
    if sentence := incompleteness(run):
        raise IncompleteRowError(sentence)


def _sentence(run: str, reason: str) -> str:
    return (
        f"{run}: MLflow did not take all of the run's row ({reason}). The results are stored. Once the tracker "
        f"answers, `dreambooth3d runs complete {run}` completes the row, without computing anything again."
    )


def is_incomplete(run: PipelineRunResponse, row: Run | None) -> bool:
    """Whether a run that has ended lacks a row, or its row lacks what its steps have stored.

    Args:
        run: with its steps.
        row: of the run, None where there is none.
    """
    if row is None:
        return SUMMARIZE in run.steps or bool(publishing.finished_stages(run.id))
    if status_of(run.status) != "failed" and PUBLISH in run.steps:
        return TAG not in row.data.tags
    if SUMMARIZE in run.steps:
        return "subjects" not in row.data.tags
    ended = [name for name, step in run.steps.items() if step.status.is_successful]
    known = current(row.data.metrics)
    unseen = [name for name in ended if metric_key(name, "cached") not in known]
    return bool(unseen) and any(stage.name in unseen for stage in publishing.finished_stages(run.id))


def complete(run: PipelineRunResponse, made: Published | None, verdicts: Sequence[Mapping[str, Any]] | None) -> None:
    """Complete the row of a run that has ended, from what is stored.

    Args:
        run: with its steps.
        made: what its `publish` took, where it ended well.
        verdicts: what its `summarize` took, where it has one.

    Raises:
        TrackerAwayError: the tracker stays away.
    """

    page = report_on(run, made) if made is not None else ""

    def write() -> None:
        with _row_of_the_past(run):
            if made is not None:
                write_row(run, made, page)
            elif verdicts is not None:
                log_summary(run.name, verdicts)
            else:
                publishing.replay(publishing.finished_stages(run.id))
                publishing.set_tags(rows.origin_of(run).tags())

    patiently(write, run.name)


@contextmanager
def _row_of_the_past(run: PipelineRunResponse) -> Iterator[None]:
    """The row of a run that has ended, open for a while; it keeps its times, or has those of the run."""
    origin = rows.origin_of(run)
    row = rows.open_row(rows.experiment_of(run), origin, start=_milliseconds(run.start_time or run.created))
    try:
        yield
        tags = rows.client().get_run(row).data.tags
        ended = ENDS.get(status_of(run.status, tags=tags), "FINISHED")
        rows.client().set_terminated(row, ended, _milliseconds(run.end_time or run.updated))
    finally:
        _forget_active_row()


def _forget_active_row() -> None:
    """Without a word to the tracker, which would say that the row ends now."""
    from mlflow.tracking import fluent

    fluent._active_run_stack.set([])


def _milliseconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _require_row(run: PipelineRunResponse) -> None:
    """Open the run's row where it could not be opened when the step began."""
    if mlflow.active_run() is None:
        rows.open_row(rows.experiment_of(run), rows.origin_of(run))
