"""What ZenML does at the beginning and the end of each of our steps, and should do otherwise.

A tracker that is away would end a step that is about to train for hours, and lose the result of one that has. And
nothing tells when a step's result is stored, which is when its work folder may go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import mlflow
from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
from zenml.orchestrators import step_runner

from dreambooth3d.errors import gist
from operations.launch.finished_work import forget_finished_work, return_free_memory
from operations.records import tracking
from operations.records.patience import bounded, briefly
from operations.records.row import Origin
from operations.records.rows import open_row
from operations.records.tracking import let_go_of_row, open_later

if TYPE_CHECKING:
    from zenml.config.step_run_info import StepRunInfo
    from zenml.integrations.mlflow.flavors.mlflow_experiment_tracker_flavor import MLFlowExperimentTrackerSettings

Prepare = Callable[[MLFlowExperimentTracker, "StepRunInfo"], None]
CleanUp = Callable[[MLFlowExperimentTracker, "StepRunInfo", bool], None]
NO_ROW = (
    "%s: MLflow did not open the run's row (%s). The step runs all the same; what it reports is kept with its result, "
    "from which the row is completed at the run's end."
)
NO_END = "%s: MLflow did not take the end of the step (%s). Its result is kept, and the row is completed later."


def take_part() -> None:
    """Replace ZenML's functions, for all steps that this process runs; it has no setting for that."""
    for owner, name, change in (
        (MLFlowExperimentTracker, "prepare_step_run", _patient_preparation),
        (MLFlowExperimentTracker, "cleanup_step_run", _patient_cleanup),
        (step_runner, "publish_successful_step_run", _and_forget_work),
    ):
        original = getattr(owner, name)
        if not hasattr(original, "__wrapped__"):
            setattr(owner, name, change(original))


def _patient_preparation(prepare: Prepare) -> Prepare:
    """ZenML's `prepare_step_run` for which a tracker that is away is no error."""

    @functools.wraps(prepare)
    def prepare_step_run(tracker: MLFlowExperimentTracker, info: StepRunInfo) -> None:
        settings = cast("MLFlowExperimentTrackerSettings", tracker.get_settings(info))
        if settings.nested or settings.tags:
            with bounded():
                prepare(tracker, info)
        else:
            _open_if_possible(tracker, info, settings.experiment_name or info.pipeline.name)

    return prepare_step_run


def _open_if_possible(tracker: MLFlowExperimentTracker, info: StepRunInfo, experiment: str) -> None:
    """Open the run's row; where that cannot be done now, the step tries again while it runs."""

    def opening() -> None:
        open_row(experiment, _origin(info), tracker)
        open_later(None)

    let_go_of_row()
    open_later(opening)
    try:
        with briefly():
            opening()
    except Exception as error:  # a database that is locked, a server that is away: each raises errors of its own
        tracking.outage.failed(NO_ROW, info.pipeline_step_name, gist(error))
        let_go_of_row()


def _origin(info: StepRunInfo) -> Origin:
    """What the row says of the run from the first step on."""
    pipeline = info.pipeline
    model = str(pipeline.model.name or "") if pipeline.model else ""
    return Origin.of(info.run_name, pipeline.name, pipeline.extra, model)


def _patient_cleanup(clean_up: CleanUp) -> CleanUp:
    """ZenML's `cleanup_step_run`, after which it stores the step's result, and would not if this failed."""

    @functools.wraps(clean_up)
    def cleanup_step_run(tracker: MLFlowExperimentTracker, info: StepRunInfo, step_failed: bool) -> None:
        open_later(None)
        try:
            with briefly():
                clean_up(tracker, info, step_failed)
        except Exception as error:
            tracking.outage.failed(NO_END, info.pipeline_step_name, gist(error))
            let_go_of_row()
            mlflow.set_tracking_uri("")

    return cleanup_step_run


def _and_forget_work(publish: Callable[..., Any]) -> Callable[..., Any]:
    """ZenML's function that says that a step's result is stored, after which its work folder and free memory go."""

    @functools.wraps(publish)
    def publish_successful_step_run(*arguments: Any, **options: Any) -> Any:
        published = publish(*arguments, **options)
        forget_finished_work()
        return_free_memory()
        return published

    return publish_successful_step_run
