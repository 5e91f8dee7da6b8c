"""`dreambooth3d config`: configuration files, checked and whole."""

from __future__ import annotations

from typing import Annotated

import typer

from dreambooth3d.cli import completion
from dreambooth3d.cli.commands.options import Json, Overrides

app = typer.Typer(no_args_is_help=True, help="Configuration files.")


@app.command("check")
def config_check(
    files: Annotated[list[str], typer.Argument(help="YAML files.", autocompletion=completion.configs)],
    as_json: Json = False,
) -> None:
    """Check configuration files strictly; exit code 1 if one has a problem."""
    from dreambooth3d.cli.train import check_files

    if not check_files(files, as_json):
        raise typer.Exit(1)


@app.command("show")
def config_show(
    config: Annotated[str, typer.Argument(help="A YAML file.", autocompletion=completion.configs)],
    overrides: Overrides = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="All parameters, also those left at defaults.")] = False,
    as_json: Json = False,
) -> None:
    """Print a file with its bases and overrides in it, as a file by itself."""
    from dreambooth3d.cli.train import show_file

    show_file(config, overrides or [], defaults, as_json)
