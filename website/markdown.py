"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def cell(text: str) -> str:
    """Text that stays one cell of a table, and is not taken for HTML."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
