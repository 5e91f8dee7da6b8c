"""What became of a run on other machines: ZenML's command ends alike for a finished, a failed and a lost one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from docker.errors import ContainerError
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
from zenml.orchestrators.exceptions import PipelineSubmissionError
from zenml.orchestrators.publish_utils import publish_failed_pipeline_run

from dreambooth3d.errors import DreamBooth3DError, gist
from operations.records.patience import briefly
from operations.records.processes import PROCESS
from operations.records.rows import end_row
from operations.records.status import status_of

SETTLE_S, POLL_S = 15.0, 1.0
"""How long a run may take to be known as finished after its orchestrator has returned, in seconds."""
_ADVICE = "`zenml pipeline runs list` and the step logs say why."


class RunFailedError(DreamBooth3DError):
    """A run was refused, has failed, or died on the machine that executed it."""


def require_success(
    run: PipelineRunResponse | None, snapshot: PipelineSnapshotResponse | None
) -> PipelineRunResponse | None:
    """Ask the server how a run has ended; one that nobody executes any more is marked as failed there.

    Args:
        run: as ZenML returned it; None for a schedule, which has not run yet.
        snapshot: of which it is a run.

    Returns:
        The run as it stands now; one for which the orchestrator does not wait may still be running.

    Raises:
        RunFailedError: it did not succeed.
    """
    if run is None:
        return None
    run = Client().get_pipeline_run(run.id)
    awaited = _was_awaited(snapshot)
    deadline = time.monotonic() + SETTLE_S
    while awaited and status_of(run.status) == "running" and time.monotonic() < deadline:
        time.sleep(POLL_S)
        run = Client().get_pipeline_run(run.id)
    if (status := status_of(run.status)) == "completed" or (status == "running" and not awaited):
        return run
    if status == "running":
        raise _lost(run, "its orchestrator ended before it did")
    failed = sorted(name for name, step in run.steps.items() if step.status.is_failed)
    place = f" in {', '.join(failed)}{_reason(run, failed)}" if failed else ""
    verb = "was stopped" if run.status == ExecutionStatus.STOPPED else "failed"
    raise RunFailedError(f"Run {run.name} {verb}{place}. {_ADVICE}")


def explained(error: Exception, snapshot: PipelineSnapshotResponse | None) -> Exception:
    """One sentence for what an orchestrator or a step operator raised whose steps run elsewhere; others as they are.

    The run is marked as failed.
    """
    if isinstance(error, PipelineSubmissionError):
        return RunFailedError(f"Nothing was started: {gist(error)} Correct it in your YAML's settings or schedule.")
    if isinstance(error, RuntimeError) and str(error).startswith("Docker error"):
        return RunFailedError(f"Nothing was started: the image could not be built. {gist(error)}")
    stack = Client().active_stack
    remote = isinstance(error, RuntimeError) and (stack.orchestrator.config.is_remote or stack.step_operators)
    if snapshot is None or not (remote or isinstance(error, ContainerError)):
        return error
    runs = Client().list_pipeline_runs(snapshot_id=snapshot.id, size=1).items
    if not runs:
        return error
    # What a step has raised is told better by the step than by the job that ran it; a step operator tells of its own.
    try:
        require_success(runs[0], snapshot)
    except RunFailedError as failure:
        enough = status_of(runs[0].status) != "running" and not stack.step_operators
        return failure if enough else RunFailedError(f"{failure} ({_said(error)})")
    return error


def end_row_of(snapshot: PipelineSnapshotResponse | None, status: str) -> None:
    """Let no row of a run that ended by an error say that it finished, if the tracker takes it.

    A run that this process does not execute may go on without it, and is left alone.

    Args:
        snapshot: of which it is a run; None where there is none yet.
        status: MLflow's word.
    """
    with suppress(Exception), briefly():
        for run in Client().list_pipeline_runs(snapshot_id=snapshot.id, size=1, hydrate=True).items if snapshot else ():
            if run.status.is_finished or run.config.extra.get(PROCESS):
                end_row(run, status)


def _said(error: Exception) -> str:
    """The gist of what an orchestrator or a step operator says; of a lost SSH connection, also its last error."""
    attempts, _, last = str(error).partition("Last error: ")
    return f"{gist(error).partition(' To diagnose')[0]} {last.splitlines()[0]}" if attempts and last else gist(error)


def _reason(run: PipelineRunResponse, failed: Sequence[str]) -> str:
    """The first line that the first failed step said, in parentheses; empty where none is known."""
    known = [info.message.strip() for name in failed if (info := run.steps[name].exception_info) and info.message]
    return f" ({known[0].splitlines()[0]})" if known and known[0] else ""


def _was_awaited(snapshot: PipelineSnapshotResponse | None) -> bool:
    """Whether the orchestrator returns only at a run's end."""
    orchestrator = Client().active_stack.orchestrator
    settings = None
    if snapshot is not None and orchestrator.settings_class is not None:
        settings = orchestrator.get_settings(snapshot)
    return bool(getattr(settings, "synchronous", orchestrator.config.is_synchronous))


def _lost(run: PipelineRunResponse, reason: str) -> RunFailedError:
    publish_failed_pipeline_run(run.id)
    return RunFailedError(f"Run {run.name} is lost: {reason}. It is marked as failed now. {_ADVICE}")
