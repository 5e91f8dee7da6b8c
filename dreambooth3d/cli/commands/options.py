"""What several commands share: options, arguments, and how they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from dreambooth3d.cli import completion

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    str, typer.Argument(help="A YAML file such as configs/demo.yaml.", autocompletion=completion.configs)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value, as of train.", autocompletion=completion.overrides)
]
RunName = Annotated[
    str, typer.Argument(help="Name of a run, or its beginning, or latest.", autocompletion=completion.runs)
]
All = Annotated[bool, typer.Option("--all", help="Everything: tags, metrics, parameters and files.")]
Live = Annotated[bool, typer.Option("--live", help="Show in a browser what is made meanwhile (extra: live).")]
EndRuns = Annotated[bool, typer.Option("--force", help="Also while a run of it is under way, which ends that run.")]


def answer(value: object) -> None:
    """Print JSON."""
    from dreambooth3d.cli.show import print_json

    print_json(value)


def told(as_json: bool, lines: Sequence[str]) -> None:
    """Print what a command says: one line per sentence, or a JSON list of them."""
    if as_json:
        answer(list(lines))
    elif lines:
        typer.echo("\n".join(lines))


@contextmanager
def telling(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Takes what a command says while it works: each line at once, or all of them as JSON at its end."""
    lines: list[str] = []
    yield lines.append if as_json else typer.echo
    if as_json:
        answer(lines)
