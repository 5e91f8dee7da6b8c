"""`dreambooth3d runs clean`: mark runs that died, in ZenML and in MLflow, and remove what they have left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.exceptions import IllegalOperationError
from zenml.models import PipelineRunResponse, PipelineRunUpdate, StepRunUpdate

from dreambooth3d.cli.leftovers import find_leftovers
from dreambooth3d.errors import ConfigError
from operations.records import rows
from operations.records.liveness import judge, unfinished_runs
from operations.records.status import TAG, pipeline_runs, status_of, tells_its_end

DIED = "died"


def clean_runs(
    say: Callable[[str], None], older_than_h: float | None = None, dry_run: bool = False, states: bool = False
) -> int:
    """Mark what died; only with evidence: its process on this machine is gone, its orchestrator says so, or its age.

    Then remove what it has left, and nobody uses.

    Args:
        say: takes one line per run.
        older_than_h: hours without a sign of life after which a run that cannot be asked counts as dead.
        dry_run: say it only.
        states: remove also what unfinished stages would go on from.

    Returns:
        How many runs and rows were, or would be, marked, and things removed.

    Raises:
        ConfigError: `older_than_h` is not positive.
    """
    if older_than_h is not None and not older_than_h > 0:
        raise ConfigError(f"runs clean: --older-than is {older_than_h}. Give a number of hours above 0.")
    older_than = None if older_than_h is None else timedelta(hours=older_than_h)
    verb = "would be marked" if dry_run else "marked"
    marked, dead, alive = 0, {}, False
    for run in unfinished_runs():
        verdict = judge(run, older_than)
        if verdict.state == "dead":
            if not dry_run and not _end_run(run, verdict.reason):
                say(f"{run.name}: left alone, it has ended meanwhile.")
                continue
            dead[run.name] = verdict.reason
            say(f"{run.name}: {verb} as failed in ZenML, {verdict.reason}.")
            marked += 1
        else:
            alive = True
            say(f"{run.name}: left alone, {verdict.reason}.")
    known = rows.list_rows(limit=None)
    runs = pipeline_runs(map(rows.row_name, known))
    for row in known:
        end = _end_of_row(row, runs.get(rows.row_name(row)), dead)
        if end is not None:
            status, reason = end
            say(f"{rows.row_name(row)}: {verb} as {status} in MLflow, {reason}.")
            marked += 1
            if not dry_run:
                _end_row(row, status, reason)
    removed = _remove_leftovers(say, dead, alive, dry_run, states)
    if marked:
        say(f"{marked} {'entry' if marked == 1 else 'entries'} {verb}.")
    if removed:
        say(f"{removed} {'thing' if removed == 1 else 'things'} {'would be removed' if dry_run else 'removed'}.")
    if not marked and not removed:
        say("Nothing to clean.")
    return marked + removed


def _remove_leftovers(
    say: Callable[[str], None], dead: Mapping[str, str], alive: bool, dry_run: bool, states: bool
) -> int:
    removed = 0
    for leftover in find_leftovers(dead, alive, states):
        if leftover.remove is None:
            say(f"{leftover.what}: left alone, {leftover.why}.")
            continue
        if not dry_run:
            leftover.remove()
        say(f"{leftover.what}: {'would be removed' if dry_run else 'removed'}, {leftover.why}.")
        removed += 1
    return removed


def _end_run(seen: PipelineRunResponse, reason: str) -> bool:
    """Mark a run and its unfinished steps as failed, unless it has ended since it was seen; whether it was marked.

    ZenML computes a run's status from its steps.
    """
    store = Client().zen_store
    try:
        run = store.get_run(seen.id)
        if status_of(run.status) != "running":
            return False
        for step in run.steps.values():
            if not step.status.is_finished:
                store.update_run_step(step.id, StepRunUpdate(status=ExecutionStatus.FAILED))
        update = PipelineRunUpdate(status=ExecutionStatus.FAILED, status_reason=f"Marked by runs clean: {reason}")
        store.update_run(run.id, update)
    except (IllegalOperationError, KeyError):  # it ended, or was deleted, at this very moment
        return False
    return True


def _end_of_row(row: Run, run: PipelineRunResponse | None, dead: dict[str, str]) -> tuple[str, str] | None:
    """How a row should end: like its run in ZenML. None where that is unknown or has not ended, or the row says so."""
    name, told = rows.row_name(row), tells_its_end(row.info.status, row.data.tags)
    if row.info.status in ("FAILED", "KILLED"):
        return None
    if name in dead:
        return "KILLED", dead[name]
    if run is None:
        return None  # deleted in ZenML, or of another server: no evidence
    status = status_of(run.status, row.info.status, row.data.tags)
    if status == "running" or (told and status != "failed"):
        return None
    ended = "KILLED" if status == "failed" else "FINISHED"
    return None if ended == row.info.status else (ended, f"its run in ZenML is {run.status}")


def _end_row(row: Run, status: str, reason: str) -> None:
    client = rows.client()
    try:
        client.set_terminated(row.info.run_id, status)
        if status != "FINISHED":
            client.set_tag(row.info.run_id, DIED, reason)
            if TAG in row.data.tags:  # it was killed after it had said that all is done, before that was so
                client.set_tag(row.info.run_id, TAG, "failed")
    except MlflowException as error:
        raise ConfigError(
            f"{rows.row_name(row)}: MLflow refused the mark ({str(error).splitlines()[0]}). Run the command again once "
            "the tracking server answers."
        ) from None
