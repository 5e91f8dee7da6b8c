"""The checkpoint curve as a drawing: what each checkpoint scores, and which two were chosen."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

WIDTH, PANEL, GAP, LEFT, RIGHT, TOP = 460.0, 112.0, 42.0, 46.0, 14.0, 26.0
SERIES = (
    ("subject_similarity", "likeness to the photos (cosine)", None),
    ("view_obedience", "shows the view that was asked for (share)", (0.0, 1.0)),
)


@dataclass(frozen=True)
class _Axis:
    """A linear axis from values to places in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)


def curve(scores: pd.DataFrame) -> str:
    """The SVG: one panel per score over the steps of the fine-tuning, with the partial and the full checkpoint marked.

    Args:
        scores: the table of `CheckpointChoice`.
    """
    table = scores.sort_values("step")
    steps = [float(step) for step in table["step"]]
    along = _Axis(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    height = TOP + len(SERIES) * (PANEL + GAP)
    parts = [_marks(table, along, height)]
    for index, (name, title, bounds) in enumerate(SERIES):
        top = TOP + index * (PANEL + GAP)
        parts.append(_panel([float(value) for value in table[name]], steps, along, top, title, bounds, name))
    parts.append(f'<text class="word" x="{(LEFT + WIDTH) / 2:g}" y="{height - 4:g}">step of the fine-tuning</text>')
    return f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{_label(table)}">{"".join(parts)}</svg>'


def _panel(
    values: Sequence[float], steps: Sequence[float], along: _Axis, top: float, title: str,
    bounds: tuple[float, float] | None, kind: str,
) -> str:  # fmt: skip
    low, high = bounds or (min(values), max(values))
    margin = 0.0 if bounds else max(high - low, 1e-3) * 0.1
    up = _Axis(low - margin, high + margin, top + PANEL, top)
    points = [(along.at(step), up.at(value)) for step, value in zip(steps, values, strict=True)]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>' for x, y in points)
    ends = "".join(
        f'<path class="grid" d="M{LEFT:g} {up.at(value):.1f}H{WIDTH - RIGHT:g}"/>'
        f'<text class="tick" x="{LEFT - 6:g}" y="{up.at(value) + 4:.1f}">{value:.2f}</text>'
        for value in (low, high)
    )
    words = f'<text class="title" x="{LEFT:g}" y="{top - 7:g}">{title}</text>'
    return f'{ends}{words}<path class="line {kind}" d="M{line}"/>{dots}'


def _marks(table: pd.DataFrame, along: _Axis, height: float) -> str:
    """A line across both panels for each checkpoint that was chosen, and the first and last step."""
    bottom, parts = height - GAP + 6, []
    named: dict[int, list[str]] = {}
    for name in ("partial", "full"):
        for step in table.loc[table[name].astype(bool), "step"] if name in table else ():
            named.setdefault(int(step), []).append(name)
    for step, names in named.items():
        x = along.at(step)
        anchor = "end" if x > WIDTH - 90 or (names == ["partial"] and x > LEFT + 90) else "start"
        shift = -4 if anchor == "end" else 4
        parts.append(
            f'<path class="chosen" d="M{x:.1f} {TOP:g}V{bottom:g}"/><text class="chosen" style="text-anchor:{anchor}" '
            f'x="{x + shift:.1f}" y="{bottom - 6:g}">{" and ".join(names)}: {step}</text>'
        )
    for step, anchor in ((along.low, "start"), (along.high, "end")):
        parts.append(
            f'<text class="tick" style="text-anchor:{anchor}" x="{along.at(step):.1f}" y="{bottom + 10:g}">'
            f"{step:g}</text>"
        )
    return "".join(parts)


def _label(table: pd.DataFrame) -> str:
    rows = [
        f"step {int(row.step)}: likeness {row.subject_similarity:.3f}, view {row.view_obedience:.0%}"
        for row in table.itertuples()
    ]
    return html.escape(f"Scores of the checkpoints. {'; '.join(rows)}.")
