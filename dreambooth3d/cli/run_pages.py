"""`dreambooth3d runs show --html` and `runs compare --html | --csv`: runs as files that can be sent."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreambooth3d.cli.files import require_writable, write_file
from dreambooth3d.cli.show import require_several
from dreambooth3d.environment import quiet
from dreambooth3d.errors import ConfigError
from dreambooth3d.naming import printable
from operations.records import tables
from operations.records.reading import Reader
from operations.records.row import Row, row_name

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would take for something to compute."""


def write_report(name: str, path: Path) -> str:
    """Write the report of a run.

    Returns:
        Where it lies.

    Raises:
        RunNotFoundError: there is no such run.
        ConfigError: the file cannot be written.
    """
    require_writable(path, "report.html")
    quiet()
    row = Reader.of_active_state().find(name)
    write_file(path, _report(row), "the report")
    return printable(str(path))


def _report(row: Row) -> str:
    """The report of a row's run; of one that ZenML has deleted, what the row still has."""
    from zenml.client import Client

    from dreambooth3d.run_report.page import run_report
    from operations.registry.remains import of_row
    from operations.registry.reporting import report_of

    try:
        return report_of(Client().get_pipeline_run(row_name(row)))
    except KeyError:
        return run_report(of_row(row))


def write_comparison(names: Sequence[str], page: Path | None, table: Path | None) -> list[str]:
    """Write several runs side by side, as a page, as a table, or both.

    Returns:
        Where they lie.

    Raises:
        RunNotFoundError: fewer than two runs are named, or one does not exist.
        ConfigError: a file cannot be written, or both are the same.
    """
    require_several(names)
    if page is not None and table is not None and page.absolute() == table.absolute():
        raise ConfigError(f"{printable(str(page))}: --html and --csv name the same file. Give each one of its own.")
    for path, example in ((page, "comparison.html"), (table, "comparison.csv")):
        if path is not None:
            require_writable(path, example)
    quiet()
    reader, written = Reader.of_active_state(), []
    described = list({run["run"]: run for run in (tables.describe(reader, name) for name in names)}.values())
    if page is not None:
        write_file(page, _page(described), "the page")
        written.append(printable(str(page)))
    if table is not None:
        write_file(table, comma_separated(described), "the table")
        written.append(printable(str(table)))
    return written


def _page(described: Sequence[Mapping[str, Any]]) -> str:
    from dreambooth3d.run_report.comparison import comparison_page, side_by_side
    from operations.registry.reporting import pictures_of

    return comparison_page(side_by_side(described), {run["run"]: pictures_of(run["run"]) for run in described})


def comma_separated(described: Sequence[Mapping[str, Any]]) -> str:
    """One row per run: how it stands, then its metrics, then its parameters; what a run lacks is empty.

    Text that a spreadsheet would compute is given an apostrophe in front, as they do themselves.

    Args:
        described: runs, as `tables.describe` gives them.
    """
    head = ("run", "status", "subject", "preset", "duration_s")
    metrics, params = (sorted({key for run in described for key in run[what]}) for what in ("metrics", "params"))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_cell, (*head, *metrics, *params)))
    for run in described:
        values = [run[key] for key in head]
        values += [run["metrics"].get(key) for key in metrics] + [run["params"].get(key) for key in params]
        writer.writerow(map(_cell, values))
    return out.getvalue()


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
