"""Tables that can be read in narrow terminals as well."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dreambooth3d.environment import console

_ANY_WIDTH = 10_000


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Text | str]], spare: Sequence[str]) -> None:
    """Print a table without those columns for which the terminal is too narrow, and on stderr which these are.

    Args:
        columns: headers.
        rows: a cell per column; text stands as it is, brackets included.
        spare: columns that may be left out, the first one first.
    """
    out = console()
    kept = fitting_columns(columns, rows, spare, out)
    out.print(_table(columns, rows, kept))
    if left := [name for name in columns if name not in kept]:
        typer.echo(f"Left out, as the terminal is narrow: {', '.join(left)}. --json has all.", err=True)


def fitting_columns(
    columns: Sequence[str], rows: Sequence[Sequence[Text | str]], spare: Sequence[str], out: Console
) -> list[str]:
    """The columns that fit on a line, or, where not even that does, all that are not spare."""
    kept, left = list(columns), list(spare)
    unbounded = out.options.update(max_width=_ANY_WIDTH)
    while left and Measurement.get(out, unbounded, _table(columns, rows, kept)).maximum > out.width:
        kept.remove(left.pop(0))
    return kept


def _table(columns: Sequence[str], rows: Sequence[Sequence[Text | str]], kept: Sequence[str]) -> Table:
    table = Table()
    for name in kept:
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = [Text(cell) if isinstance(cell, str) else cell for cell in row]
        table.add_row(*(cell for name, cell in zip(columns, cells, strict=True) if name in kept))
    return table
