"""Child runs: one training per subject inside a run over many, each with a run and an MLflow row of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zenml.client import Client
from zenml.enums import StepRuntime
from zenml.execution.pipeline.dynamic.run_context import DynamicPipelineRunContext
from zenml.logger import get_logger
from zenml.model.model import Model
from zenml.models import PipelineRunResponse
from zenml.pipelines.dynamic.pipeline_definition import DynamicPipeline
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import gist
from dreambooth3d.naming import model_name
from operations.launch.finished_work import forget_finished_work
from operations.launch.preflight import preflight
from operations.registry.publication import incompleteness

logger = get_logger(__name__)


@dataclass(frozen=True)
class Child:
    """How a child run ended.

    Attributes:
        run: its name, empty where it never began.
        error: why it failed, or what its row lacks; empty where neither is so.
    """

    run: str = ""
    error: str = ""


def train_children(
    training: DynamicPipeline, configs: Mapping[str, TrainingConfig], parallel: int
) -> Iterator[tuple[str, Child]]:
    """Train each subject in a run of its own; one that fails does not stop the others.

    Subjects train at the same time where the orchestrator gives each step a place of its own. Elsewhere all steps share
    this process, and with it the tracker's state and the GPU, and they train one after the other.

    Args:
        training: the pipeline of one subject, which takes a training's parameters.
        configs: of each training, by subject.
        parallel: how many at the same time; more would only wait for a GPU, and a step's deadline runs meanwhile.

    Yields:
        subject and child, in the given order.
    """
    if _can_run_apart():
        started: deque[tuple[str, Any]] = deque()
        for name, config in configs.items():
            if len(started) == parallel:
                yield _ended(*started.popleft())
            started.append((name, _submit(training, name, config)))
        while started:
            yield _ended(*started.popleft())
        return
    for name, config in configs.items():
        # Asked for one by one, so that a subject is promoted before the next one trains.
        child = _checked(name, config)
        yield name, child or _outcome(name, lambda name=name, config=config: _child(training, name)(_plain(config)))
        forget_finished_work()


def _can_run_apart() -> bool:
    return bool(Client().active_stack.orchestrator.can_run_isolated_steps)


def _plain(config: TrainingConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _checked(name: str, config: TrainingConfig) -> Child | None:
    """A child that cannot even begin, or None."""
    try:
        preflight(config)
    # A subject that fails, for whatever reason, must not stop the others.
    except Exception as error:
        logger.error("%s: %s", name, gist(error))
        return Child(error=gist(error))
    return None


def _submit(training: DynamicPipeline, name: str, config: TrainingConfig) -> Any:
    return _checked(name, config) or _child(training, name, runtime=StepRuntime.ISOLATED).submit(_plain(config))


def _ended(name: str, started: Any) -> tuple[str, Child]:
    return name, started if isinstance(started, Child) else _outcome(name, started.result)


def _outcome(name: str, wait: Any) -> Child:
    try:
        wait()
    except Exception as error:
        logger.error("%s: training failed: %s", name, gist(error))
        run = _run(name)
        return Child(run.name if run is not None else "", gist(error))
    run = _run(name)
    return Child(run.name, incompleteness(run)) if run is not None else Child()


def _child(training: DynamicPipeline, name: str, runtime: StepRuntime | None = None) -> DynamicPipeline:
    """The child pipeline of one subject, with the settings that the parent's YAML gives to training steps."""
    parent = _parent().config
    child = training.copy()
    extra = {**parent.extra, "subject": name}
    # Images are the parent's anyway, and rows belong into the trainings' experiment.
    own = ("docker", "experiment_tracker")
    settings = {key: value for key, value in parent.settings.items() if not key.startswith(own)}
    # Children do not inherit these by themselves, and steps in places of their own have their credentials from them.
    inherited = {"environment": parent.environment, "secrets": parent.secrets}
    with child.__suppress_configure_warnings__():
        child.configure(model=Model(name=model_name(name)), extra=extra, settings=settings, **inherited)
    given = parent.extra.get("training_steps", {})
    for step in child.depends_on:
        options = dict(given.get(step.name, {}))
        if runtime is not None:
            options["runtime"] = runtime
        if options:
            step.configure(**options)
    return child


def _parent() -> PipelineRunResponse:
    """The run over many subjects, whose body is running in this process."""
    running = DynamicPipelineRunContext.get()
    if running is None:
        raise RuntimeError("child runs can be started inside a dynamic pipeline only")
    return running.run


def _run(name: str) -> PipelineRunResponse | None:
    """The newest child run of a subject."""
    found = depaginate(Client().list_pipeline_runs, parent_run_id=_parent().id, sort_by="desc:created", hydrate=True)
    return next((run for run in found if run.config.extra.get("subject") == name), None)
