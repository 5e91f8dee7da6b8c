"""`dreambooth3d runs`: what has run, and what it has left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreambooth3d.cli import completion
from dreambooth3d.cli.commands.options import All, Json, RunName, telling, told

app = typer.Typer(no_args_is_help=True, help="Finished and running pipeline runs.")


@app.command("list")
def runs_list(as_json: Json = False, limit: int = 20) -> None:
    """List runs, newest first."""
    from dreambooth3d.cli.show import show_list

    show_list(limit, as_json)


@app.command("show")
def runs_show(
    run: RunName = "latest",
    everything: All = False,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write its report, for people who were not there.")] = None,
) -> None:
    """Show one run: how it stands, what it was for, how good the asset is, and where its files are."""
    if html is not None:
        from dreambooth3d.cli.run_pages import write_report

        told(as_json, [write_report(run, html)])
        return
    from dreambooth3d.cli.show import show_run

    show_run(run, as_json, everything)


@app.command("compare")
def runs_compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs.", autocompletion=completion.runs)],
    everything: All = False,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures, figures and what differs.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table: a row per run, all metrics and parameters.")] = None,
) -> None:
    """Compare runs by the figures that matter most; with --all by all metrics, and the parameters that differ."""
    if html is not None or csv is not None:
        from dreambooth3d.cli.run_pages import write_comparison

        told(as_json, write_comparison(runs, html, csv))
        return
    from dreambooth3d.cli.show import show_comparison

    show_comparison(runs, as_json, everything)


@app.command("clean")
def runs_clean(
    older_than: Annotated[
        float | None, typer.Option(help="Hours of silence after which a run on another machine counts as dead.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    states: Annotated[
        bool, typer.Option("--states", help="Also remove what stages that have not finished would go on from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Mark runs that died (kill -9, a crash of the machine) in ZenML and in MLflow, and remove what they have left."""
    from dreambooth3d.cli.cleaning import clean_runs
    from dreambooth3d.environment import quiet

    quiet()
    with telling(as_json) as say:
        clean_runs(say, older_than, dry_run, states)


@app.command("complete")
def runs_complete(
    run: RunName = "latest",
    every: Annotated[bool, typer.Option("--all", help="All runs whose rows lack something.")] = False,
    as_json: Json = False,
) -> None:
    """Complete rows in MLflow that lack what their runs have stored, for instance as the tracker was away."""
    from dreambooth3d.cli.completing import complete_runs
    from dreambooth3d.environment import quiet

    quiet()
    with telling(as_json) as say:
        complete_runs(say, None if every else run)
