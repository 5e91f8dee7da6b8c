"""`dreambooth3d checkpoint`: fine-tuned models of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreambooth3d.cli.commands.options import Json, RunName, told

app = typer.Typer(no_args_is_help=True, help="Fine-tuned diffusion models of a run.")


@app.command("export")
def checkpoint_export(
    run: RunName,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder to write into.")],
    step: Annotated[int | None, typer.Option(help="The checkpoint of this fine-tuning step.")] = None,
    which: Annotated[str | None, typer.Option(help="partial, full or multiview; default full.")] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Write the LoRA only, for diffusers, ComfyUI and AUTOMATIC1111.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's checkpoint as a model folder that diffusers loads."""
    from dreambooth3d.cli.checkpoints import export_checkpoint

    written = export_checkpoint(run, folder, step=step, which=which, lora=lora)
    told(as_json, [f"{path}" for path in written])
