"""The report on resilience, `docs/resilience.json`: each target writes its part, and its table in Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def merge(path: Path, key: str, values: Mapping[str, Any]) -> None:
    """Put one target's figures into the report, and its table into the Markdown file of the same name beside it.

    All else stays as it is in both files; the table stands between `<!-- KEY -->` and `<!-- /KEY -->`, at the end where
    these are not there yet.

    Args:
        path: of the JSON file; it need not be there.
        key: of the target.
        values: figures by name; of figures that are keys and values themselves each becomes a row of a second table.
    """
    report = json.loads(path.read_text()) if path.is_file() else {}
    report[key] = dict(values)
    _write(path, json.dumps(report, indent=2) + "\n")
    markdown = path.with_suffix(".md")
    text = markdown.read_text() if markdown.is_file() else f"# {path.stem.capitalize()}\n"
    first, last = f"<!-- {key} -->", f"<!-- /{key} -->"
    if first not in text:
        text = f"{text.rstrip()}\n\n{first}\n{last}\n"
    before, _, rest = text.partition(first)
    _, _, after = rest.partition(last)
    _write(markdown, f"{before}{first}\n\n{_tables(values)}\n{last}{after}")


def _tables(values: Mapping[str, Any]) -> str:
    single = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    tables = [_table(["", *map(_words, single)], [["all", *single.values()]])] if single else []
    for name, rows in values.items():
        if isinstance(rows, Mapping):
            inner = {row: cells if isinstance(cells, Mapping) else {"": cells} for row, cells in rows.items()}
            columns = list(dict.fromkeys(column for cells in inner.values() for column in cells))
            body = [[row, *(cells.get(column, "") for column in columns)] for row, cells in inner.items()]
            tables.append(_table([_words(name), *map(_words, columns)], body))
    return "\n".join(tables)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_shown(cell) for cell in line)} |\n" for line in lines)


def _shown(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _write(path: Path, text: str) -> None:
    """All or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
