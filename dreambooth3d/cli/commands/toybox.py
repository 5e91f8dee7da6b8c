"""`dreambooth3d toybox`: the procedural world and its models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The procedural world and its models.")


@app.command("render")
def toybox_render(
    path: Annotated[Path, typer.Argument(help="The picture to write.")],
    size: int = 64,
    scale: int = 1,
    seed: int = 0,
) -> None:
    """Render a contact sheet of the procedural world."""
    from dreambooth3d.toybox.sheet import contact_sheet

    contact_sheet(path, size=size, scale=scale, seed=seed)
    typer.echo(f"{path}")


@app.command("pretrain")
def toybox_pretrain(
    stages: Annotated[
        list[str] | None, typer.Argument(help="vae, unet, selector, judge, card; default those. Or masks, views.")
    ] = None,
    models: Annotated[Path, typer.Option(help="Where the models go.")] = Path("models"),
    renders: Annotated[int, typer.Option(help="Training renders per model family.")] = 120_000,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each stage.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Shorten each stage to about this long.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    pack: Annotated[
        Path | None,
        typer.Option(help="Meshes and photographs to train on (docs/pretraining.md)."),
    ] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Models to continue from; scratch without.")] = None,
    samples: Annotated[int, typer.Option(help="Samples that the card measures.")] = 768,
) -> None:
    """Train the bundled models, in resumable stages."""
    from dreambooth3d.toybox.pretraining import STAGES
    from dreambooth3d.toybox.pretraining.stages import pretrain

    chosen, data = stages or STAGES, {"renders": renders, "pack": pack, "start": start, "samples": samples}
    pretrain(chosen, models, steps=steps, minutes=minutes, device=device, **data)


@app.command("meshes")
def toybox_meshes(
    folder: Annotated[Path, typer.Argument(help="A folder per Debian package, unpacked.")],
    out: Annotated[Path, typer.Option(help="Where the pack goes.")] = Path("pack"),
    fetch: Annotated[bool, typer.Option("--fetch", help="First download what is not there (5 GiB).")] = False,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Of each package's meshes, for a smaller pack.")] = 1.0,
    processes: Annotated[int, typer.Option(min=1, help="Renders that run at once.")] = 2,
) -> None:
    """Render models that others made, and cut photographs, into a pack of training data (docs/pretraining.md)."""
    from dreambooth3d.toybox.pretraining.meshes.fetch import fetch as fetch_packages
    from dreambooth3d.toybox.pretraining.meshes.pack import make_pack

    if fetch:
        fetch_packages(folder, lambda package: typer.echo(f"fetching {package}"))
    typer.echo(make_pack(folder, out, share=share, processes=processes, tell=typer.echo))
