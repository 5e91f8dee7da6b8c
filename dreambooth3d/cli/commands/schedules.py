"""`dreambooth3d schedules`: what fires on a remote orchestrator."""

from __future__ import annotations

from typing import Annotated

import typer

from dreambooth3d.cli.commands.options import EndRuns, Json, told

app = typer.Typer(no_args_is_help=True, help="Schedules of pipelines on a remote orchestrator.")


@app.command("list")
def schedules_list(as_json: Json = False) -> None:
    """List schedules."""
    from dreambooth3d.cli.schedules import show_schedules

    show_schedules(as_json)


@app.command("pause")
def schedules_pause(
    name: Annotated[str, typer.Argument(help="Name or id of a schedule.")],
    force: EndRuns = False,
    as_json: Json = False,
) -> None:
    """Stop a schedule from firing, until it is resumed."""
    from dreambooth3d.cli.schedules import set_active

    told(as_json, [set_active(name, active=False, force=force)])


@app.command("resume")
def schedules_resume(
    name: Annotated[str, typer.Argument(help="Name or id of a schedule.")], as_json: Json = False
) -> None:
    """Let a paused schedule fire again."""
    from dreambooth3d.cli.schedules import set_active

    told(as_json, [set_active(name, active=True)])


@app.command("delete")
def schedules_delete(
    name: Annotated[str, typer.Argument(help="Name or id of a schedule.")],
    force: EndRuns = False,
    as_json: Json = False,
) -> None:
    """Delete a schedule, and the secret with an API token that ZenML has made for it in Kubernetes."""
    from dreambooth3d.cli.schedules import delete_schedule

    told(as_json, delete_schedule(name, force))
