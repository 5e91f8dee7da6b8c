"""The console script. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dreambooth3d import __version__, environment, places
from dreambooth3d.cli import completion
from dreambooth3d.cli.commands import checkpoint, config, models, photos, production, runs, schedules, stack, toybox
from dreambooth3d.cli.commands.options import Config, Json, Live, Overrides, RunName, telling, told
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.faults import in_one_sentence


class _Commands(TyperGroup):
    """Commands whose user errors end in one sentence on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with in_one_sentence():
                return super().invoke(ctx)
        except DreamBooth3DError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Photos of one subject in, a personalised 3D asset out.",
)  # fmt: skip
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(config.app, name="config")
app.add_typer(models.app, name="models")
app.add_typer(photos.app, name="photos")
app.add_typer(production.app, name="production")
app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")
app.add_typer(stack.app, name="stack")
app.add_typer(toybox.app, name="toybox")

ABOUT_RUNS = ("checkpoint", "export", "production", "prune", "runs", "schedules", "ui")
"""Commands that show or change what runs have left, and do nothing where none has been."""


def main() -> None:
    """Run the console script."""
    places.make_importable()  # also for what a shell offers at the tab key, which enters nothing
    app(prog_name="dreambooth3d")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dreambooth3d {__version__}")
        raise typer.Exit


@app.callback()
def _enter(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    try:
        environment.enter()
    except DreamBooth3DError:
        # What doctor tells as one of its findings.
        if context.invoked_subcommand != "doctor":
            raise
    if context.invoked_subcommand in ABOUT_RUNS:
        environment.require_state()


@app.command()
def setup() -> None:
    """Write settings, pull the photos, initialise ZenML, register the local stack."""
    from dreambooth3d.cli.setup import run_setup

    run_setup(typer.echo)


@app.command()
def doctor(
    config: Annotated[
        str | None,
        typer.Argument(help="A YAML file whose needs are checked as well.", autocompletion=completion.configs),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check the installation, and whether this machine can run a configuration; exit code 1 if something is broken."""
    from dreambooth3d.cli.doctor import run_doctor

    if not run_doctor(as_json, config, overrides or []):
        raise typer.Exit(1)


@app.command()
def train(
    config: Config,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key.sub=value, below the file's parameters.", autocompletion=completion.overrides),
    ] = None,
    live: Live = False,
) -> None:
    """Run the main job with overrides, for example photos.dir=my_photos photos.class_noun=duck."""
    from dreambooth3d.cli.train import run_training

    run_training(config, overrides or [], live)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to make, for example 'a photo of a red snowman'.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as of train.")] = None,
    preset: Annotated[str, typer.Option(help="A name such as sds or sjc, or a YAML file.")] = "sds",
    negative: Annotated[str | None, typer.Option(help="What it should not look like.")] = None,
    guide: Annotated[str | None, typer.Option(help="base, a folder of a model or LoRA, or run:NAME.")] = None,
    live: Live = False,
) -> None:
    """Make an asset from a prompt alone, without photos, for example "a photo of a red snowman"."""
    from dreambooth3d.cli.generate import run_generation

    run_generation(prompt, preset, overrides or [], negative=negative, guide=guide, live=live)


@app.command()
def prune(
    keep_runs: Annotated[int, typer.Option(help="Newest finished runs that are kept per subject.")] = 5,
    older_than: Annotated[float, typer.Option(help="Days; younger runs are kept as well.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete checkpoints and artifacts of old runs that no production, staged, latest or kept version needs."""
    from dreambooth3d.cli.prune import run_prune
    from dreambooth3d.environment import quiet

    quiet()
    with telling(as_json) as say:
        run_prune(say, keep_runs, older_than, dry_run)


@app.command()
def export(
    run: RunName,
    formats: Annotated[
        str,
        typer.Option("--format", help="glb, obj, ply, usdz, gaussians_ply, splat, spz; several with commas."),
    ] = "glb",
    max_triangles: Annotated[int | None, typer.Option(help="Of the mesh; default the run's.")] = None,
    texture: Annotated[int | None, typer.Option(help="Texels per side of the texture; default the run's.")] = None,
    colors: Annotated[str | None, typer.Option(help="texture or vertices; default the run's.")] = None,
    metres: Annotated[float | None, typer.Option(help="Longest side; default the run's.")] = None,
    gaussians: Annotated[
        int, typer.Option(min=1, help="At most so many, where an asset of another kind is fitted by them.")
    ] = 4000,
    context: Annotated[int | None, typer.Option(help="Number of the context whose asset is meant.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write into; default outputs/RUN/exports.")] = None,
    as_json: Json = False,
) -> None:
    """Write a finished run's asset for other programs: as a textured mesh, as 3D Gaussians, or both."""
    from dreambooth3d.cli.exporting import Order, export_run

    given = {"max_triangles": max_triangles, "texture_size": texture, "colors": colors, "metres": metres}
    settings = {key: value for key, value in given.items() if value is not None}
    names = tuple(name.strip().lower() for name in formats.split(",") if name.strip())
    order = Order(run, names, out, settings, context, gaussians)
    told(as_json, [f"{path}" for path in export_run(order, lambda line: typer.echo(line, err=True))])


@app.command()
def ui(
    port: int = 5000,
    host: str = "127.0.0.1",
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser; default where there is a screen.")
    ] = None,
) -> None:
    """Serve MLflow's pages, and open them at this product's runs."""
    from dreambooth3d.cli.interface import show

    raise typer.Exit(show(port, host, open_browser))


@app.command()
def web(
    port: Annotated[int, typer.Option(help="The next free one is taken where it is in use.")] = 7860,
    host: Annotated[str, typer.Option(help="Others see the page only by another one than this.")] = "127.0.0.1",
) -> None:
    """Open a page to drop photos on, start a run, watch it, and take the asset along (extra: web)."""
    from dreambooth3d.cli.web.starting import serve

    raise typer.Exit(serve(host, port, typer.echo))
