"""Whether a run that says it is running still is: kill -9 leaves ZenML and MLflow no time to write down the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.orchestrators import BaseOrchestrator
from zenml.orchestrators.local.local_orchestrator import LocalOrchestrator
from zenml.utils.pagination_utils import depaginate

from operations.records.processes import PROCESS, is_alive, is_here, this_process


@dataclass(frozen=True)
class Liveness:
    """What is known about an unfinished run.

    Attributes:
        state: alive, dead, or unknown.
        reason: the evidence, one sentence without a full stop.
    """

    state: Literal["alive", "dead", "unknown"]
    reason: str


def process_to_record() -> dict[str, str | int | float] | None:
    """What a run that starts now should note; None where the orchestrator runs the steps elsewhere."""
    return this_process() if isinstance(Client().active_stack.orchestrator, LocalOrchestrator) else None


def unfinished_runs() -> list[PipelineRunResponse]:
    """This product's runs that ZenML takes for running, oldest first; those that wait for a person do not count."""
    waiting = (ExecutionStatus.PAUSED,)
    states = [f"{status}" for status in ExecutionStatus if not status.is_finished and status not in waiting]
    runs = depaginate(Client().list_pipeline_runs, status="oneof:" + _json_list(states), hydrate=True)
    return [run for run in runs if "preset" in run.config.extra]


def _json_list(values: list[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def judge(run: PipelineRunResponse, older_than: timedelta | None = None, now: datetime | None = None) -> Liveness:
    """Whether a run lives, by its process where that would be on this machine, else by its orchestrator, else by age.

    Args:
        run: an unfinished run.
        older_than: a run about which nothing else is known counts as dead this long after its last sign of life.
        now: UTC without a time zone, as ZenML has it; default the present.
    """
    process = run.config.extra.get(PROCESS)
    if is_here(process):
        return _judge_process(process)
    told = _ask_orchestrator(run)
    if told is not None:
        return told
    silent = (now or datetime.now(UTC).replace(tzinfo=None)) - last_sign_of_life(run)
    hours = silent / timedelta(hours=1)
    if older_than is not None and silent > older_than:
        return Liveness("dead", f"no sign of life for {hours:.1f} hours")
    where = f"on {process['host'].partition('/')[0]}" if isinstance(process, Mapping) else "elsewhere"
    return Liveness("unknown", f"may be alive {where}, last sign of life {hours:.1f} hours ago")


def _judge_process(process: Mapping[str, object]) -> Liveness:
    number = process["pid"]
    if is_alive(process):
        return Liveness("alive", f"its process {number} runs on this machine")
    return Liveness("dead", f"its process {number} on this machine is gone")


def _ask_orchestrator(run: PipelineRunResponse) -> Liveness | None:
    """What a remote orchestrator says of a run; None where it cannot be asked."""
    from zenml.enums import StackComponentType

    components = run.stack.components.get(StackComponentType.ORCHESTRATOR, []) if run.stack else []
    if not components or components[0].flavor_name in ("local", "local_docker"):
        return None
    name = components[0].name
    try:
        orchestrator = cast(BaseOrchestrator, BaseOrchestrator.from_model(components[0]))
        status, _ = orchestrator.fetch_status(run=run, include_steps=False)
    except Exception:  # whatever a client of a cluster raises where it cannot answer
        return None
    if status is None:
        return None
    if status.is_finished:
        return Liveness("dead", f"the orchestrator {name} says that it is {status}")
    return Liveness("alive", f"the orchestrator {name} says that it is {status}")


def last_sign_of_life(run: PipelineRunResponse) -> datetime:
    """When the run, or one of its steps, last started, ended or beat its heart; UTC without a time zone."""
    signs = [run.created, run.start_time]
    for step in run.steps.values():
        signs += [step.start_time, step.end_time, step.latest_heartbeat]
    return max(sign.replace(tzinfo=None) for sign in signs if sign is not None)
