"""A ZenML pipeline that refuses what ZenML would silently accept, and whose exit code tells the truth.

`zenml pipeline run` imports the pipeline, calls `with_options(config_path=...)`, then calls it; both are extended here.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar, cast

import click
from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.execution.pipeline.dynamic.run_context import DynamicPipelineRunContext
from zenml.model.model import Model
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
from zenml.pipelines.compilation_context import PipelineCompilationContext
from zenml.pipelines.dynamic.pipeline_definition import DynamicPipeline
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.steps import BaseStep

from dreambooth3d.config.fleet import FleetConfig, PortfolioConfig, RetrainConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.errors import ArtifactError, ConfigError, DreamBooth3DError
from dreambooth3d.faults import explained as explained_fault
from dreambooth3d.faults import in_one_sentence
from dreambooth3d.naming import model_name
from operations.launch.archive import known_source_root, lean_code_archive
from operations.launch.checking import PipelineConfig, check_preset, parameter_problems, parse_parameters
from operations.launch.finished_work import forget_finished_work, forget_work_of, return_free_memory
from operations.launch.identity import git_commit
from operations.launch.outcome import end_row_of, explained, require_success
from operations.launch.preflight import preflight
from operations.launch.presets import Preset, as_file, read_preset
from operations.launch.scorers import check_scorers
from operations.launch.stack_fit import require_fitting_stack
from operations.orchestrators.step_tokens import tokens_in_secrets
from operations.records import hooks
from operations.records.liveness import process_to_record
from operations.records.patience import is_away
from operations.records.processes import PROCESS
from operations.records.tracking import forget_artifact_places, let_go_of_row
from operations.registry.decisions import Verdict
from operations.registry.publication import require_complete_row

logger = logging.getLogger(__name__)
_FILTERED_LOGGERS = (
    "zenml.orchestrators.local.local_orchestrator",
    "zenml.orchestrators.step_launcher",
    "zenml.log_stores.artifact.artifact_log_exporter",
    "mlflow.store.db.utils",
    "zenml.integrations.mlflow.experiment_trackers.mlflow_experiment_tracker",
)
_HOOKS = {"on_failure": hooks.on_failure, "on_success": hooks.on_success}


Config = TypeVar("Config", bound=PipelineConfig)


class CommandError(click.ClickException, DreamBooth3DError):
    """A user's error as click shows it: one sentence on stderr, exit code 1."""


class _Strict(Pipeline, ABC, Generic[Config]):
    """What strict pipelines share, static or dynamic.

    Their parameters are the fields of their configuration. Their YAML is checked to the last key, their inputs are
    checked before anything is written, and errors that a user can act on, failed runs included, end in one sentence.
    """

    preset = "none"
    config_type: type[Config]
    step_settings: Mapping[str, Any] = {}
    _given: Mapping[str, Any] = {}
    _submitted: PipelineSnapshotResponse | None = None

    def with_options(self, *args: Any, config_path: str | None = None, **kwargs: Any) -> Self:
        """A copy with the given options, after a strict check of the YAML."""
        with user_errors():
            preset = read_preset(config_path) if config_path is not None else None
            if preset is not None:
                self._require_own(preset)
            # ZenML declares any pipeline, and returns one of this type.
            copy = cast(Self, super().with_options(*args, config_path=config_path, **kwargs))
        copy.config_type = self.config_type
        if preset is not None:
            copy.preset, copy._given = preset.name, preset.values
            copy.step_settings = preset.values.get("steps") or {}
        return copy

    def _parse_config_file(self, config_path: str | None, matcher: list[str]) -> dict[str, Any]:
        """As ZenML does, whenever it reads the YAML, but with its bases in it."""
        if config_path is None:
            return super()._parse_config_file(config_path, matcher)
        with user_errors(), as_file(read_preset(config_path)) as file:
            return super()._parse_config_file(str(file), matcher)

    def __call__(self, *args: Any, **kwargs: Any) -> PipelineRunResponse | None:
        """Check the inputs, run, and print a summary.

        Raises:
            CommandError: for every error that a user can act on, also one raised in a step.
        """
        if self._is_inside_another():
            return super().__call__(*args, **kwargs)
        with user_errors():
            config = self._parameters_in_force(kwargs)
            require_fitting_stack(self._given)
            options = self._prepared(config)
            _require_tracker()
            with self.__suppress_configure_warnings__():
                self.configure(**options)
            damaged: set[str | None] = set()
            while True:
                try:
                    return self._attempt(config, *args, **kwargs)
                except ArtifactError as error:
                    if not error.recomputed or error.uri in damaged or self._has_fixed_name():
                        raise
                    damaged.add(error.uri)
                    logger.warning("%s Starting again, so that this step does.", error)

    def _has_fixed_name(self) -> bool:
        """Whether a second run would have the name of the first, which ZenML takes once."""
        name = self._given.get("run_name")
        return isinstance(name, str) and "{" not in name

    def _attempt(self, config: Config, *args: Any, **kwargs: Any) -> PipelineRunResponse | None:
        """Run once, and conclude."""
        self._submitted = None
        try:
            with lean_code_archive(), known_source_root():
                run = super().__call__(*args, **kwargs)
        except KeyboardInterrupt:
            let_go_of_row("KILLED")
            end_row_of(self._submitted, "KILLED")
            click.echo("Interrupted. The same command goes on from here.", err=True)
            raise
        except Exception as error:
            # ZenML leaves a row open where a step fails before it begins; MLflow would call it finished at the exit.
            let_go_of_row("FAILED")
            end_row_of(self._submitted, "FAILED")
            if (told := explained(error, self._submitted)) is not error:
                raise told from None
            raise
        finally:
            _close_log_store()
            forget_artifact_places()
        run = require_success(run, self._submitted)
        if run is not None and run.status == ExecutionStatus.COMPLETED:
            self._concluded(run, config)
        elif run is not None:
            print(
                f"Run {run.name} was handed over, and is not waited for. `zenml pipeline runs list` tells how it ends."
            )
        return_free_memory()
        return run

    def _create_snapshot(self, *args: Any, **kwargs: Any) -> PipelineSnapshotResponse:
        """As ZenML does; what is submitted is remembered, to find the run again whatever happens to it."""
        snapshot = super()._create_snapshot(*args, **kwargs)
        self._submitted = snapshot
        return snapshot

    def _is_inside_another(self) -> bool:
        return PipelineCompilationContext.is_active()

    @abstractmethod
    def _prepared(self, config: Config) -> dict[str, Any]:
        """Check the inputs; what the run is configured with."""

    def _concluded(self, run: PipelineRunResponse, config: Config) -> None:
        """What follows a run that completed; most pipelines add nothing."""

    def _require_own(self, preset: Preset) -> None:
        """Check the YAML, and that it is for this pipeline."""
        found = check_preset(preset)
        # Without gates, a retraining's parameters are those of a portfolio.
        if isinstance(found, PortfolioConfig) and self.config_type is RetrainConfig:
            return
        if not isinstance(found, self.config_type):
            raise ConfigError(
                f"{preset.path}: its parameters are those of another pipeline ({type(found).__name__}, not "
                f"{self.config_type.__name__}). Choose another file, or another pipeline."
            )

    def _parameters_in_force(self, given: dict[str, Any]) -> Config:
        """The validated parameters of YAML and call together."""
        in_file = self._from_config_file.get("parameters") or {}
        plain = {name: getattr(value, "model_dump", lambda value=value: value)() for name, value in given.items()}
        values = {**(self.configuration.parameters or {}), **in_file, **plain}
        if problems := parameter_problems(values, self.config_type):
            raise ConfigError(problems[0])
        return parse_parameters(values, self.config_type)

    def _extra(self) -> dict[str, Any]:
        """What later steps cannot find out themselves: in a container there is neither the YAML nor git."""
        return {"preset": self.preset, "git_commit": git_commit(), PROCESS: process_to_record()}


SomePipeline = TypeVar("SomePipeline", bound=_Strict[Any])


class StrictPipeline(_Strict[TrainingConfig | CeilingConfig | TextTo3dConfig]):
    """A strict pipeline over one subject."""

    def _prepared(self, config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> dict[str, Any]:
        options: dict[str, Any] = {"extra": self._extra(), "model": Model(name=model_name(preflight(config)))}
        options |= _HOOKS
        # Where it is known, the local orchestrator raises the step's own error instead of naming the step only.
        if ExecutionMode.FAIL_FAST in Client().active_stack.orchestrator.supported_execution_modes:
            options["execution_mode"] = ExecutionMode.FAIL_FAST
        return options

    def _concluded(self, run: PipelineRunResponse, config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> None:
        _conclude(run, config)


class StrictFleetPipeline(_Strict[FleetConfig]):
    """A strict static pipeline over many subjects."""

    def _prepared(self, config: FleetConfig) -> dict[str, Any]:
        check_scorers(config.training.scorers)
        return {"extra": self._extra(), **_HOOKS}


class StrictDynamicPipeline(_Strict[FleetConfig], DynamicPipeline):
    """A strict pipeline over many subjects, whose body runs in the orchestrator, at each tick of a schedule."""

    training_steps: Sequence[BaseStep] = ()

    def with_options(self, *args: Any, config_path: str | None = None, **kwargs: Any) -> Self:
        """As of every strict pipeline; where the YAML sends training steps elsewhere, this run finds their image."""
        copy = super().with_options(*args, config_path=config_path, **kwargs)
        copy.training_steps = self.training_steps
        if any((options or {}).get("step_operator") for options in copy.step_settings.values()):
            # ZenML looks for images among the steps that a pipeline names; children have those of their parent.
            named = {step.name for step in copy.depends_on}
            others = [step.copy() for step in copy.training_steps if step.name not in named]
            copy._depends_on = [*copy.depends_on, *others]
        return copy

    def _call_entrypoint(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body, in the orchestrator."""
        with tokens_in_secrets():
            return super()._call_entrypoint(*args, **kwargs)

    def _is_inside_another(self) -> bool:
        return DynamicPipelineRunContext.get() is not None

    def _prepared(self, config: FleetConfig) -> dict[str, Any]:
        if not Client().active_stack.orchestrator.supports_dynamic_pipelines:
            raise ConfigError(
                f"The orchestrator of the stack {Client().active_stack_model.name!r} runs no dynamic pipelines, and "
                f"{self.name} decides at run time. Choose a stack with a local, Docker or Kubernetes orchestrator, or "
                "pipelines.retraining_static.retrain_static."
            )
        check_scorers(config.training.scorers)
        return {"extra": {**self._extra(), "training_steps": dict(self.step_settings)}, **_HOOKS}


def strict_pipeline(
    experiment: str, config: type[TrainingConfig | CeilingConfig | TextTo3dConfig] = TrainingConfig
) -> Callable[[Callable[..., None]], StrictPipeline]:
    """Decorator: a `StrictPipeline` whose runs are one row each in an MLflow experiment."""
    return _decorator(StrictPipeline, experiment, config)


def strict_dynamic_pipeline(
    experiment: str, config: type[FleetConfig], own_steps: Sequence[BaseStep], training_steps: Sequence[BaseStep]
) -> Callable[[Callable[..., None]], StrictDynamicPipeline]:
    """Decorator: a `StrictDynamicPipeline` whose runs are one summary row each in an MLflow experiment.

    Args:
        experiment: of the summary rows.
        config: whose fields are the parameters.
        own_steps: those that the body calls itself, so that the YAML can configure them.
        training_steps: those of its child runs, which the YAML can configure as well.
    """
    decorate = _decorator(StrictDynamicPipeline, experiment, config, depends_on=[*own_steps])

    def with_children(function: Callable[..., None]) -> StrictDynamicPipeline:
        pipeline = decorate(function)
        pipeline.training_steps = tuple(training_steps)
        return pipeline

    return with_children


def strict_fleet_pipeline(
    experiment: str, config: type[FleetConfig]
) -> Callable[[Callable[..., None]], StrictFleetPipeline]:
    """Decorator: a `StrictFleetPipeline`."""
    return _decorator(StrictFleetPipeline, experiment, config)


def _decorator(
    kind: type[SomePipeline], experiment: str, config: type[PipelineConfig], **options: Any
) -> Callable[[Callable[..., None]], SomePipeline]:
    settings = {"experiment_tracker": {"experiment_name": experiment, "nested": False}}

    def decorate(function: Callable[..., None]) -> SomePipeline:
        pipeline = kind(name=function.__name__, entrypoint=function, settings=settings, **options)
        pipeline.__doc__, pipeline.config_type = function.__doc__, config
        return pipeline

    return decorate


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `DreamBooth3DError` into a `CommandError`, and keep its traceback out of ZenML's log."""
    # Within another one of these, the outer one's filters stay.
    loggers = [logging.getLogger(name) for name in _FILTERED_LOGGERS]
    loggers = [logger for logger in loggers if _is_worth_reading not in logger.filters]
    for logger in loggers:
        logger.addFilter(_is_worth_reading)
    try:
        with in_one_sentence():
            yield
    except CommandError:
        raise
    except DreamBooth3DError as error:
        raise CommandError(str(error)) from None
    finally:
        for logger in loggers:
            logger.removeFilter(_is_worth_reading)


def _close_log_store() -> None:
    """Send the last log lines now: at the interpreter's exit Python 3.12 can start no thread for it any more.

    The loggers, one per step, go as well. Their provider stays until the process ends: it is shut down at its exit,
    and a fork of the process calls its processor, and would complain if that were gone.
    """
    store = Client().active_stack.log_store
    loggers = getattr(getattr(store, "_provider", None), "_logger_cache", None)
    deactivate = getattr(store, "deactivate", None)
    if deactivate is not None:
        deactivate()
    if loggers is not None:
        loggers.clear()


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """False for Ctrl+C, a user's error, which is shown once at the end, and a warning after each step about nothing."""
    if str(record.msg).startswith("Failed to disable MLflow autologging"):
        return False
    arguments = record.args if isinstance(record.args, tuple) else ()
    errors = [*arguments, *(record.exc_info or ())]
    return not any(isinstance(error, DreamBooth3DError | KeyboardInterrupt) or _is_explained(error) for error in errors)


def _is_explained(error: object) -> bool:
    return isinstance(error, Exception) and explained_fault(error) is not None


def _require_tracker() -> None:
    """Every run must have a row."""
    if Client().active_stack_model.components and Client().active_stack.experiment_tracker is not None:
        return
    raise ConfigError(
        f"The active ZenML stack {Client().active_stack_model.name!r} has no MLflow tracker. Run `dreambooth3d setup` "
        "and activate its environment, or choose another stack with `zenml stack set`."
    )


def require_no_failure(verdicts: Iterable[Verdict]) -> None:
    """End a run over many subjects as failed if any of them failed.

    Raises:
        DreamBooth3DError: names them, with the first one's reason.
    """
    failed = [verdict for verdict in verdicts if verdict.action == "failed"]
    if failed:
        names = ", ".join(verdict.subject for verdict in failed)
        raise DreamBooth3DError(f"{len(failed)} of the subjects failed ({names}). The first one: {failed[0].reason}")


def _conclude(run: PipelineRunResponse, config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> None:
    """Copy the results to where a person looks for them, and print the summary.

    Raises:
        IncompleteRowError: the tracker did not take the run's row.
    """
    from operations.launch.summary import print_summary, write_outputs

    folder = write_outputs(run, config)
    forget_finished_work()
    taken = (step.original_step_run_id for step in run.steps.values())
    forget_work_of({str(step_run) for step_run in taken if step_run})
    require_complete_row(run)
    try:
        print_summary(run, folder)
    except Exception as error:
        if not is_away(error):
            raise
        logger.warning("%s has completed: %s. MLflow, which has its figures, is away.", run.name, folder)
