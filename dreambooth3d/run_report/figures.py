"""Figures of runs as tables in HTML: each with its sentence, beside what it is to be compared with."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dreambooth3d.glossary import LABELS, PREFIXES, metric, shown

HEADLINE = ("psnr_fg", "mask_iou", "mesh/psnr_fg", "clip_i", "clip_t", "r_precision", "janus_excess", "janus_rate")
"""Figures that say the most about an asset, the first first."""


@dataclass(frozen=True)
class Column:
    """Figures of one thing, such as a run or a baseline, by the names of the rows."""

    title: str
    values: Mapping[str, float]


def label(name: str) -> str:
    """What a page calls a figure."""
    return LABELS.get(name, name)


def own_names(metrics: Mapping[str, float]) -> list[str]:
    """The names of those figures that are of the finished asset, in the order of `LABELS`, then by name."""
    own = [name for name in metrics if not name.startswith(tuple(PREFIXES)) and not name.endswith("_truth")]
    known = [name for name in LABELS if name in own]
    return known + sorted(set(own) - set(known))


def of_prefix(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The figures behind a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def figures_table(names: Iterable[str], columns: Sequence[Column], best: bool = False) -> str:
    """A table with a row for each figure that any column knows, its sentence below its name.

    Args:
        names: of the figures.
        columns: what is compared.
        best: mark the best of each row, where it is known which direction is better and the values differ.
    """
    head = "".join(f'<th scope="col">{html.escape(column.title)}</th>' for column in columns)
    rows = []
    for name in names:
        values = [column.values.get(name) for column in columns]
        if all(value is None for value in values):
            continue
        winners = best_of(name, values) if best else set()
        cells = "".join(_cell(name, value, index in winners) for index, value in enumerate(values))
        rows.append(f'<tr><th scope="row">{_named(name)}</th>{cells}</tr>')
    return wide_table("Figures", f'<th scope="col">figure</th>{head}', "".join(rows))


def wide_table(name: str, head: str, rows: str) -> str:
    """A table that scrolls by itself where it is wider than the page; all parts are HTML."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def best_of(name: str, values: Sequence[float | None]) -> set[int]:
    """Places of the best values of a figure; none where all are alike, or nobody knows which is better."""
    known = metric(name)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if known is None or not known.better or len(set(finite)) < 2:
        return set()
    top = max(finite) if known.better == "up" else min(finite)
    return {index for index, value in enumerate(values) if value == top}


def _cell(name: str, value: float | None, winner: bool) -> str:
    if value is None:
        return '<td class="none">–</td>'
    known = metric(name)
    text = html.escape(shown(value, known.unit if known else ""))
    return f'<td class="best"><b>{text}</b> <span class="mark">best</span></td>' if winner else f"<td>{text}</td>"


def _named(name: str) -> str:
    known = metric(name)
    text = f'<span class="name">{html.escape(label(name))}</span>'
    if known is None:
        return text
    arrow = {"up": " · more is better", "down": " · less is better", "": ""}[known.better]
    return f'{text}<span class="meaning">{html.escape(known.meaning)}{arrow}</span>'
