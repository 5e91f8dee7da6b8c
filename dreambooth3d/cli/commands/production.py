"""`dreambooth3d production`: the version of each subject that readers see."""

from __future__ import annotations

from typing import Annotated

import typer

from dreambooth3d.cli.commands.options import Json, RunName, told

app = typer.Typer(no_args_is_help=True, help="Which version of a subject's asset readers see.")


@app.command("show")
def production_show(
    subject: Annotated[str | None, typer.Argument(help="A subject; default all.")] = None, as_json: Json = False
) -> None:
    """Show the version that is in production."""
    from dreambooth3d.cli.production import show_production

    show_production(subject, as_json)


@app.command("promote")
def production_promote(
    run: RunName,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: Json = False,
) -> None:
    """Make the version of a run production."""
    from dreambooth3d.cli.production import promote_run

    told(as_json, [promote_run(run, reason)])


@app.command("rollback")
def production_rollback(
    subject: Annotated[str, typer.Argument(help="Whose production version.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: Json = False,
) -> None:
    """Make the version production that was before the present one."""
    from dreambooth3d.cli.production import roll_back

    told(as_json, [roll_back(subject, reason)])


@app.command("history")
def production_history(
    subject: Annotated[str, typer.Argument(help="Whose production version.")], as_json: Json = False
) -> None:
    """List all changes of the production version, oldest first."""
    from dreambooth3d.cli.production import show_history

    show_history(subject, as_json)
