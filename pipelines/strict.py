"""A ZenML pipeline that refuses what ZenML would silently accept, and whose exit code tells the truth.

`zenml pipeline run` imports the pipeline, calls `with_options(config_path=...)`, then calls it; both are extended here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.model.model import Model
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
from zenml.pipelines.compilation_context import PipelineCompilationContext
from zenml.pipelines.pipeline_definition import Pipeline

from dreambooth3d.config import CeilingConfig, TrainingConfig
from dreambooth3d.errors import ConfigError, DreamBooth3DError
from dreambooth3d.naming import model_name
from pipelines import hooks
from pipelines.archive import lean_code_archive
from pipelines.checking import check_file, parameter_problems, parse_parameters
from pipelines.identity import git_commit
from pipelines.liveness import PROCESS, process_to_record
from pipelines.outcome import explained, require_success
from pipelines.preflight import preflight
from steps._support import forget_finished_work

_FILTERED_LOGGERS = (
    "zenml.orchestrators.local.local_orchestrator",
    "zenml.orchestrators.step_launcher",
    "zenml.integrations.mlflow.experiment_trackers.mlflow_experiment_tracker",
)


class CommandError(click.ClickException, DreamBooth3DError):
    """A user's error as click shows it: one sentence on stderr, exit code 1."""


class StrictPipeline(Pipeline):
    """A pipeline whose parameters are the fields of its configuration, `TrainingConfig` by default.

    Its YAML is checked to the last key, its inputs are checked before anything is written, errors that a user can act
    on end in one sentence, and a finished run ends with a summary.
    """

    preset = "none"
    config_type: type[TrainingConfig | CeilingConfig] = TrainingConfig
    _submitted: PipelineSnapshotResponse | None = None

    def with_options(self, *args: Any, config_path: str | None = None, **kwargs: Any) -> StrictPipeline:
        """A copy with the given options, after a strict check of the YAML."""
        with user_errors():
            if config_path is not None:
                self._require_own(config_path)
            copy = super().with_options(*args, config_path=config_path, **kwargs)
        copy.config_type = self.config_type
        if config_path is not None:
            copy.preset = Path(config_path).stem
        return copy

    def __call__(self, *args: Any, **kwargs: Any) -> PipelineRunResponse | None:
        """Check the inputs, run, and print a summary.

        Raises:
            CommandError: for every error that a user can act on, also one raised in a step.
        """
        if PipelineCompilationContext.is_active():
            return super().__call__(*args, **kwargs)
        with user_errors():
            config = self._parameters_in_force(kwargs)
            subject = preflight(config)
            _require_tracker()
            self._describe_run(subject)
            self._submitted = None
            try:
                with lean_code_archive():
                    run = super().__call__(*args, **kwargs)
            except Exception as error:
                if (told := explained(error, self._submitted)) is not error:
                    raise told from None
                raise
            finally:
                _close_log_store()
            require_success(run, self._submitted)
        if run is not None and run.status == ExecutionStatus.COMPLETED:
            _conclude(run, config)
        return run

    def _create_snapshot(self, *args: Any, **kwargs: Any) -> PipelineSnapshotResponse:
        """As ZenML does; what is submitted is remembered, to find the run again whatever happens to it."""
        self._submitted = super()._create_snapshot(*args, **kwargs)
        return self._submitted

    def _require_own(self, path: str) -> None:
        """Check the YAML, and that it is for this pipeline."""
        found = check_file(path)
        if not isinstance(found, self.config_type):
            raise ConfigError(
                f"{path}: its parameters are those of another pipeline ({type(found).__name__}, not "
                f"{self.config_type.__name__}). Choose another file, or another pipeline."
            )

    def _parameters_in_force(self, given: dict[str, Any]) -> TrainingConfig | CeilingConfig:
        """The validated parameters of YAML and call together."""
        in_file = self._from_config_file.get("parameters") or {}
        plain = {name: getattr(value, "model_dump", lambda value=value: value)() for name, value in given.items()}
        values = {**(self.configuration.parameters or {}), **in_file, **plain}
        if problems := parameter_problems(values, self.config_type):
            raise ConfigError(problems[0])
        return parse_parameters(values, self.config_type)

    def _describe_run(self, subject: str) -> None:
        """What later steps cannot find out themselves: in a container there is neither the YAML nor git."""
        extra = {"preset": self.preset, "git_commit": git_commit(), PROCESS: process_to_record()}
        options: dict[str, Any] = {"extra": extra, "model": Model(name=model_name(subject))}
        options |= {"on_failure": hooks.on_failure, "on_success": hooks.on_success}
        # Where it is known, the local orchestrator raises the step's own error instead of naming the step only.
        if ExecutionMode.FAIL_FAST in Client().active_stack.orchestrator.supported_execution_modes:
            options["execution_mode"] = ExecutionMode.FAIL_FAST
        with self.__suppress_configure_warnings__():
            self.configure(**options)


def strict_pipeline(
    experiment: str, config: type[TrainingConfig | CeilingConfig] = TrainingConfig
) -> Callable[[Callable[..., None]], StrictPipeline]:
    """Decorator: a `StrictPipeline` whose runs are one row each in an MLflow experiment."""
    tracker = {"experiment_name": experiment, "nested": False}

    def decorate(function: Callable[..., None]) -> StrictPipeline:
        pipeline = StrictPipeline(name=function.__name__, entrypoint=function, settings={"experiment_tracker": tracker})
        pipeline.__doc__, pipeline.config_type = function.__doc__, config
        return pipeline

    return decorate


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `DreamBooth3DError` into a `CommandError`, and keep its traceback out of ZenML's log."""
    loggers = [logging.getLogger(name) for name in _FILTERED_LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_worth_reading)
    try:
        yield
    except CommandError:
        raise
    except DreamBooth3DError as error:
        raise CommandError(str(error)) from None
    finally:
        for logger in loggers:
            logger.removeFilter(_is_worth_reading)


def _close_log_store() -> None:
    """Send the last log lines now: at the interpreter's exit Python 3.12 can start no thread for it any more."""
    deactivate = getattr(Client().active_stack.log_store, "deactivate", None)
    if deactivate is not None:
        deactivate()


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """False for a user's error, which is shown once at the end, and for a warning after every step about nothing."""
    if str(record.msg).startswith("Failed to disable MLflow autologging"):
        return False
    arguments = record.args if isinstance(record.args, tuple) else ()
    errors = [*arguments, *(record.exc_info or ())]
    return not any(isinstance(error, DreamBooth3DError) for error in errors)


def _require_tracker() -> None:
    """Every run must have a row."""
    if Client().active_stack_model.components and Client().active_stack.experiment_tracker is not None:
        return
    raise ConfigError(
        f"The active ZenML stack {Client().active_stack_model.name!r} has no MLflow tracker. Run `make setup` and "
        "`source .venv/bin/activate`, or choose another stack with `zenml stack set`."
    )


def _conclude(run: PipelineRunResponse, config: TrainingConfig | CeilingConfig) -> None:
    """Copy the results to where a person looks for them, and print the summary."""
    from dreambooth3d.cli.summary import print_summary, write_outputs

    folder = write_outputs(run, config)
    forget_finished_work()
    print_summary(run, folder)
