"""What a shell offers when a person presses the tab key: files of configurations, their keys and values, runs.

Whatever goes wrong here, nothing is offered: a shell has no place for an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

RUNS = 50
"""So many of the newest are offered."""
Complete = Callable[[typer.Context, str], list[str]]


def _never_fails(complete: Complete) -> Complete:
    @wraps(complete)
    def offered(context: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception):
            return complete(context, incomplete)
        return []

    return offered


@_never_fails
def configs(context: typer.Context, incomplete: str) -> list[str]:  # noqa: ARG001
    """YAML files and folders, those of `configs/` where nothing is typed yet, and else the presets' names."""
    if "/" not in incomplete and not Path("configs").is_dir():
        return [*_files(incomplete), *(f.stem for f in _presets() if f.stem.startswith(incomplete))]
    return _files(incomplete)


def _presets() -> list[Path]:
    from dreambooth3d.places import repository

    return sorted((repository() / "configs").glob("*.yaml"))


def _files(incomplete: str) -> list[str]:
    start = Path(incomplete)
    folder = start if incomplete.endswith("/") or not incomplete else start.parent
    if not incomplete and (Path("configs")).is_dir():
        folder = Path("configs")
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix in (".yaml", ".yml")]
    names = (f"{path}/" if path.is_dir() else f"{path}" for path in found if not path.name.startswith("."))
    return [name for name in names if name.startswith(incomplete)]


@_never_fails
def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the configuration that stands before, section by section; for a whole key its values, or its default."""
    from operations.launch.checking import config_type
    from operations.launch.presets import read_preset

    config = context.params.get("config")
    values = read_preset(str(config)).values.get("parameters") if config else None
    return list(keys(config_type(values or {}), incomplete))


def keys(model: Any, incomplete: str) -> Iterator[str]:
    """What may follow: sections end in a dot, keys in an equals sign.

    Args:
        model: of the whole configuration.
        incomplete: the beginning of a dotted key.
    """
    *sections, start = incomplete.split(".")
    for name in sections:
        if name not in model.model_fields or (model := _section(model.model_fields[name].annotation)) is None:
            return
    prefix = "".join(f"{name}." for name in sections)
    takes_any = {name for name, field in model.model_fields.items() if _alternatives(field.annotation)}
    found = [name for name in model.model_fields if name.startswith(start) and name in takes_any]
    for name in found:
        field = model.model_fields[name]
        section = _section(field.annotation)
        if len(found) > 1:
            yield f"{prefix}{name}{'.' if section else '='}"
        elif section:
            yield from (f"{prefix}{name}.{entry}" for entry in keys(section, ""))
        else:
            # More than one, so that the shell does not take the word for finished.
            yield f"{prefix}{name}="
            yield from (f"{prefix}{name}={value}" for value in _values(field))


def _section(annotation: Any) -> Any:
    """The section that a key holds, None where it holds a value."""
    from pydantic import BaseModel

    kinds = [kind for kind in _alternatives(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return kinds[0] if kinds else None


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union but None, else the annotation alone, without what pydantic is told beside them."""
    if hasattr(annotation, "__metadata__"):
        return _alternatives(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    return [] if annotation in (None, NoneType) else [annotation]


def _values(field: Any) -> list[str]:
    """The choices of a key, or its default."""
    chosen = [kind for kind in _alternatives(field.annotation) if get_origin(kind) is Literal]
    if chosen:
        return [str(value) for value in get_args(chosen[0])]
    if bool in _alternatives(field.annotation):
        return ["true", "false"]
    default = field.default
    return [str(default)] if isinstance(default, int | float | str) and default != "" else []


@_never_fails
def runs(context: typer.Context, incomplete: str) -> list[str]:  # noqa: ARG001
    """Names of the newest runs, where these can be read without delay, and `latest`."""
    from dreambooth3d import environment
    from operations.records.local_stores import local_stores
    from operations.records.row import row_name
    from operations.records.rows import EXPERIMENT

    environment.enter()
    stores = local_stores(EXPERIMENT)
    names = [row_name(row) for row in stores.newest(RUNS)] if stores else []
    return [name for name in ("latest", *names) if name.startswith(incomplete)]
