"""`dreambooth3d models`: models from the hub and to it."""

from __future__ import annotations

from typing import Annotated

import typer

from dreambooth3d.cli import completion
from dreambooth3d.cli.commands.options import Json, Overrides, told

app = typer.Typer(no_args_is_help=True, help="Models from the hub.")


@app.command("fetch")
def models_fetch(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file such as configs/sd15_dog.yaml, or a model of rembg.", autocompletion=completion.configs
        ),
    ],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Bring a configuration's base model and scorers, or a model of rembg, and print where they are."""
    from dreambooth3d.cli.train import fetch_models

    told(as_json, fetch_models(config, overrides or []))


@app.command("push")
def models_push(
    repository: Annotated[str, typer.Argument(help="owner/name on the hub; made where there is none.")],
    run: Annotated[
        str | None,
        typer.Option(help="Whose checkpoint; without it the bundled models.", autocompletion=completion.runs),
    ] = None,
    which: Annotated[str | None, typer.Option(help="partial, full or multiview; default full.")] = None,
    step: Annotated[int | None, typer.Option(help="The checkpoint of this fine-tuning step.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Push the LoRA only.")] = False,
    secret: Annotated[
        str | None, typer.Option(help="A ZenML secret with the token as `token`; default the variable HF_TOKEN.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
    as_json: Json = False,
) -> None:
    """Push a run's fine-tuned model, or the bundled models, to the Hugging Face hub, with a model card."""
    from dreambooth3d.cli.pushing import push_model

    address = push_model(repository, run, which=which, step=step, lora=lora, secret=secret, private=not public)
    told(as_json, [address])
