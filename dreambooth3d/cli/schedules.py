"""`dreambooth3d schedules`: list, pause, resume and delete, with what ZenML's orchestrators leave behind."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, cast

import typer
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ScheduleResponse
from zenml.orchestrators import BaseOrchestrator
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.cli.fitting import print_table
from dreambooth3d.environment import quiet
from dreambooth3d.errors import ConfigError, DreamBooth3DError, gist

_NOT_FOUND = 404


def schedules() -> list[dict[str, Any]]:
    """One JSON-ready object per schedule: name, id, pipeline, cron, active, orchestrator, next or only start."""
    return [_describe(schedule) for schedule in depaginate(Client().list_schedules, hydrate=True)]


def _describe(schedule: ScheduleResponse) -> dict[str, Any]:
    start = schedule.start_time or schedule.run_once_start_time
    return {
        "name": schedule.name,
        "id": str(schedule.id),
        "pipeline": _pipeline_name(schedule),
        "cron": schedule.cron_expression,
        "interval_s": schedule.interval_second.total_seconds() if schedule.interval_second else None,
        "start": start.isoformat() if isinstance(start, datetime) else None,
        "active": schedule.active,
        "orchestrator": _orchestrator_name(schedule),
    }


def _pipeline_name(schedule: ScheduleResponse) -> str | None:
    try:
        return Client().get_pipeline(schedule.pipeline_id).name if schedule.pipeline_id else None
    except KeyError:
        return None


def _orchestrator_name(schedule: ScheduleResponse) -> str | None:
    try:
        kind = StackComponentType.ORCHESTRATOR
        return Client().get_stack_component(kind, schedule.orchestrator_id).name if schedule.orchestrator_id else None
    except KeyError:
        return None


def show_schedules(as_json: bool) -> None:
    """Print them."""
    quiet()
    rows = schedules()
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo("There are no schedules.", err=True)
        return
    cells = []
    for row in rows:
        every = f"every {row['interval_s']:.0f} s" if row["interval_s"] else ""
        fires, state = row["cron"] or every or row["start"] or "", "active" if row["active"] else "paused"
        cells.append([row["name"], row["pipeline"] or "", fires, state, row["orchestrator"] or "gone"])
    print_table(("schedule", "pipeline", "fires", "state", "orchestrator"), cells, ("orchestrator", "pipeline"))


def set_active(name: str, active: bool, force: bool = False) -> str:
    """Pause or resume a schedule, in ZenML and where it fires.

    Args:
        name: of the schedule, or its id.
        active: False to pause it.
        force: pause it even while a run of it is under way, which ends that run.

    Returns:
        What was done, one sentence.

    Raises:
        ConfigError: no such schedule, its orchestrator cannot do that, or a run of it is under way.
        DreamBooth3DError: the orchestrator refused.
    """
    quiet()
    schedule, verb = _find(name), "resumed" if active else "paused"
    if schedule.active == active:
        return f"{schedule.name} is {verb} already."
    orchestrator = _orchestrator(schedule)
    if orchestrator is None:
        raise ConfigError(
            f"{schedule.name}: its orchestrator is gone, so it cannot be {verb}. `dreambooth3d schedules delete` "
            "removes it from ZenML."
        )
    # ZenML's own client only logs a warning here, and ends as if it had been done.
    if not orchestrator.supports_schedule_updates:
        raise ConfigError(
            f"{schedule.name}: ZenML cannot pause or resume schedules of the {orchestrator.flavor} orchestrator "
            f"{_orchestrator_name(schedule)!r}. Do it there, in that orchestrator's own interface."
        )
    if not active and not force:
        _require_idle(schedule)
    try:
        Client().update_schedule(schedule.id, active=active)
    except Exception as error:
        raise DreamBooth3DError(
            f"{schedule.name}: its orchestrator refused ({gist(error)}), so it was not {verb}. Check that the cluster "
            "is reachable and try again."
        ) from error
    return f"{schedule.name} was {verb}."


def delete_schedule(name: str, force: bool = False) -> list[str]:
    """Delete a schedule in ZenML and where it fires, and the token secret that the Kubernetes orchestrator leaves.

    ZenML's entry goes last: a command that was interrupted can be given again.

    Args:
        name: of the schedule, or its id.
        force: delete it even while a run of it is under way, which ends that run.

    Returns:
        What was done, one sentence each.

    Raises:
        ConfigError: no such schedule, or a run of it is under way.
        DreamBooth3DError: the orchestrator refused.
    """
    quiet()
    schedule = _find(name)
    orchestrator, said = _orchestrator(schedule), []
    if not force:
        _require_idle(schedule)
    try:
        if orchestrator is not None and orchestrator.supports_schedule_deletion:
            # Before the secret, or else it could fire once more, without its token.
            orchestrator.delete_schedule(schedule)
        said += _delete_token_secrets(schedule, orchestrator)
        # Not through ZenML's client, which would ask the orchestrator a second time.
        Client().zen_store.delete_schedule(schedule.id, soft=True)
    except Exception as error:
        raise DreamBooth3DError(
            f"{schedule.name}: it was not deleted completely ({gist(error)}). Check that the cluster is reachable and "
            "give the command again."
        ) from error
    if orchestrator is None:
        said.append("Its orchestrator is gone: whatever fires it there must be removed there.")
    elif not orchestrator.supports_schedule_deletion:
        said.append(
            f"ZenML cannot delete schedules of the {orchestrator.flavor} orchestrator: remove it there as well, or it "
            "goes on firing."
        )
    return [f"{schedule.name} was deleted.", *said]


def _find(name: str) -> ScheduleResponse:
    try:
        return Client().get_schedule(name, allow_name_prefix_match=False)
    except (KeyError, ValueError):
        known = ", ".join(schedule.name for schedule in depaginate(Client().list_schedules)) or "none"
        raise ConfigError(f"{name}: there is no such schedule. Known are: {known}.") from None


def _require_idle(schedule: ScheduleResponse) -> None:
    """No run may be under way: the ZenML server refuses the token of a schedule that is paused or deleted."""
    runs = Client().list_pipeline_runs(schedule_id=schedule.id, sort_by="desc:created", size=100).items
    unfinished = [run.name for run in runs if not run.status.is_finished]
    if unfinished:
        raise ConfigError(
            f"{schedule.name}: its run {unfinished[0]} is under way, and would lose its access to ZenML. Wait for its "
            "end, or give --force. `dreambooth3d runs clean` marks runs that died."
        )


def _orchestrator(schedule: ScheduleResponse) -> BaseOrchestrator | None:
    """The orchestrator that fires a schedule, or None where it was deleted.

    Raises:
        ConfigError: its packages are not installed.
    """
    if schedule.orchestrator_id is None:
        return None
    try:
        found = Client().get_stack_component(StackComponentType.ORCHESTRATOR, schedule.orchestrator_id)
    except KeyError:
        return None
    try:
        return cast(BaseOrchestrator, BaseOrchestrator.from_model(found))
    except ImportError as error:
        raise ConfigError(
            f"{schedule.name}: the packages of its {found.flavor_name} orchestrator are not installed "
            f"({gist(error)}). Run `zenml integration install {found.flavor_name}` and give the command again."
        ) from None


def _delete_token_secrets(schedule: ScheduleResponse, orchestrator: Any) -> list[str]:
    """Remove the secrets `zenml-token-<snapshot id>` in which the Kubernetes orchestrator leaves its API token."""
    name_of = getattr(orchestrator, "get_token_secret_name", None)
    if orchestrator is None or name_of is None or not orchestrator.config.pass_zenml_token_as_secret:
        return []
    own_namespace, core = orchestrator.config.kubernetes_namespace, orchestrator._k8s_core_api
    namespace_of, said = getattr(orchestrator, "token_namespace", lambda snapshot: own_namespace), []
    for snapshot in depaginate(Client().list_snapshots, schedule_id=schedule.id, named_only=False, hydrate=True):
        secret, namespace = name_of(snapshot.id), namespace_of(snapshot)
        try:
            core.delete_namespaced_secret(name=secret, namespace=namespace)
        except Exception as error:
            if getattr(error, "status", None) != _NOT_FOUND:
                raise
        else:
            said.append(f"The secret {secret} with its API token was removed from the namespace {namespace}.")
    return said
