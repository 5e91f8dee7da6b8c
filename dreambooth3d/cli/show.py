"""`dreambooth3d runs`: rows of MLflow as tables or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from dreambooth3d.environment import console, quiet
from dreambooth3d.errors import RunNotFoundError
from operations.records import rows


def print_json(value: object) -> None:
    """Print a value as JSON; NaN becomes null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: object) -> Text:
    """A cell of a table: three digits after the point, nothing for None, and text as it stands, brackets included."""
    return Text(f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value))


def show_list(limit: int, as_json: bool) -> None:
    """Print the newest runs."""
    quiet()
    found = rows.briefs(rows.list_rows(limit))
    if as_json:
        print_json(found)
        return
    table = Table()
    for name in ("run", "subject", "preset", "status", "started", "psnr", "psnr_fg", "clip_i", "r_precision"):
        table.add_column(name, no_wrap=name == "run")
    for row in found:
        started = datetime.fromtimestamp(row.pop("started")).strftime("%Y-%m-%d %H:%M")
        cells = [*list(row.values())[:4], started, *list(row.values())[4:]]
        table.add_row(*map(number, cells))
    console().print(table)


def show_run(name: str, as_json: bool) -> None:
    """Print one run."""
    quiet()
    values = rows.describe(rows.find_row(name))
    if as_json:
        print_json(values)
        return
    out = console()
    out.print(f"{values['run']}: {values['status']}, {values['duration_s']} s", highlight=False)
    for title in ("tags", "metrics", "params", "artifacts"):
        table = Table(title=title, title_justify="left", show_header=False)
        for key, value in values[title].items():
            table.add_row(key, number(value))
        out.print(table)


def show_comparison(names: Sequence[str], as_json: bool) -> None:
    """Print runs side by side.

    Raises:
        RunNotFoundError: fewer than two runs are named, or one does not exist.
    """
    if len(names) < 2:
        raise RunNotFoundError("runs compare: name two runs at least. `dreambooth3d runs list` shows them.")
    quiet()
    values = rows.compare(rows.find_row(name) for name in names)
    if as_json:
        print_json(values)
        return
    for title, found in values.items():
        table = Table(title=title, title_justify="left")
        columns = list(next(iter(found.values()), {}))
        for column in ["", *columns]:
            table.add_column(column)
        for key, cells in found.items():
            table.add_row(key, *(number(cells[column]) for column in columns))
        console().print(table)
