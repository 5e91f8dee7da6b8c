"""Several runs side by side: pictures, figures with the best marked, and the parameters that differ."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dreambooth3d.export.page import filled, style
from dreambooth3d.glossary import LABELS, own_name
from dreambooth3d.run_report.figures import Column, figures_table, wide_table
from dreambooth3d.run_report.page import duration
from dreambooth3d.run_report.parts import LIMIT_BYTES, POLICY, bounded, picture, resource, section

VIEWS_SHOWN, VIEW_PX = 4, 220
VALUE_CHARACTERS = 400
TIMES = "seconds"
HEAD = ("status", "subject", "preset", "duration_s")


@dataclass(frozen=True)
class Seen:
    """The pictures of one run.

    Attributes:
        turntable: all around, evenly from the front; empty where there are none any more.
        photo: one of the subject's, None where there is none.
    """

    turntable: tuple[Image.Image, ...] = ()
    photo: Image.Image | None = None


def comparison_page(
    values: Mapping[str, Mapping[str, Mapping[str, Any]]], pictures: Mapping[str, Seen], limit: int = LIMIT_BYTES
) -> str:
    """The page's HTML.

    Args:
        values: `runs` (status, subject, preset, duration_s), `metrics` and the `params` that differ, each by key and
            then by run.
        pictures: of the runs.
        limit: of its size in bytes; pictures become smaller until it fits.
    """
    return bounded(lambda detail: _page(values, pictures, detail), limit)


def _page(values: Mapping[str, Mapping[str, Mapping[str, Any]]], pictures: Mapping[str, Seen], detail: float) -> str:
    runs = list(values["runs"]["status"])
    subjects = {str(name) for name in values["runs"]["subject"].values() if name}
    title = f"{len(runs)} runs of {', '.join(sorted(subjects)) or 'unknown subjects'}"
    times = {key: cells for key, cells in values["metrics"].items() if _is_time(key)}
    figures = {key: cells for key, cells in values["metrics"].items() if key not in times}
    first = {key: cells for key, cells in figures.items() if called(key) in LABELS}
    rest = {key: cells for key, cells in figures.items() if key not in first}
    more = f"<details><summary>{len(rest)} further figures</summary>{_table(rest, runs, best=True)}</details>"
    body = [
        section("pictures", "Side by side", _pictures(values["runs"], runs, pictures, detail) if detail > 0 else ""),
        section("measured", "Measured", _table(first, runs, best=True) + (more if rest else "") if first else ""),
        section("settings", "Parameters that differ", _settings(values["params"], runs)),
        section("steps", "Time per step", _times(times, runs)),
    ]
    parts = {
        "policy": POLICY,
        "title": html.escape(title),
        "style": style(),
        "own": resource("report.css"),
        "heading": html.escape(title),
        "lead": "",
        "body": "\n".join(filter(None, body)),
        "foot": "Made with DreamBooth3D. This file holds all that it shows, and asks nothing of a network.",
    }
    return filled(resource("report.html"), parts)


def side_by_side(described: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Described runs as `comparison_page` takes them: what says how good they are and how long they took, and the
    parameters that differ.

    Args:
        described: objects with run, status, subject, preset, duration_s, metrics and params.
    """
    runs = {run["run"]: run for run in described}
    metrics = sorted({key for run in described for key in run["metrics"] if _is_compared(key)})
    params = sorted({key for run in described for key in run["params"]})
    settings = {key: {name: run["params"].get(key) for name, run in runs.items()} for key in params}
    return {
        "runs": {key: {name: run[key] for name, run in runs.items()} for key in HEAD},
        "metrics": {key: {name: run["metrics"].get(key) for name, run in runs.items()} for key in metrics},
        "params": {key: values for key, values in settings.items() if len(set(values.values())) > 1},
    }


def called(key: str) -> str:
    """What a table calls a figure: its own name, or that of its key where others have the same."""
    name = own_name(key).removeprefix("evaluate_prompt/")
    return name if name in LABELS and not key.startswith("evaluate_context_") else key


def _is_time(key: str) -> bool:
    return own_name(key) == TIMES


def _is_compared(key: str) -> bool:
    return key.startswith("evaluate") or called(key) in LABELS or _is_time(key)


def _table(figures: Mapping[str, Mapping[str, Any]], runs: Sequence[str], best: bool) -> str:
    order = {name: place for place, name in enumerate(LABELS)}
    names = {key: called(key) for key in sorted(figures, key=lambda key: (order.get(called(key), len(order)), key))}
    columns = [
        Column(run, {name: figures[key][run] for key, name in names.items() if figures[key][run] is not None})
        for run in runs
    ]
    return figures_table(dict.fromkeys(names.values()), columns, best)


def _times(times: Mapping[str, Mapping[str, Any]], runs: Sequence[str]) -> str:
    """How long each step took, under its name."""
    if not times:
        return ""
    steps = {key: key.removeprefix("steps/seconds/").removesuffix("/seconds") for key in times}
    head = "".join(f'<th scope="col">{html.escape(run)}</th>' for run in runs)
    cells = {key: "".join(f"<td>{_time(times[key][run])}</td>" for run in runs) for key in steps}
    rows = "".join(f'<tr><th scope="row">{html.escape(step)}</th>{cells[key]}</tr>' for key, step in steps.items())
    said = "When it was computed: a step from the cache took no time in this run."
    table = wide_table("Time per step", f'<th scope="col">step</th>{head}', rows)
    return f"<p>{said}</p>{table}"


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _pictures(
    heads: Mapping[str, Mapping[str, Any]], runs: Sequence[str], pictures: Mapping[str, Seen], detail: float
) -> str:
    cells = []
    for run in runs:
        seen = pictures.get(run, Seen())
        every = max(1, len(seen.turntable) // VIEWS_SHOWN)
        views = [
            picture(view, round(VIEW_PX * detail), f"{run}, view {number}")
            for number, view in enumerate(seen.turntable[::every][:VIEWS_SHOWN], start=1)
        ]
        shown = f'<div class="views">{"".join(views)}</div>' if views else "<p>Its pictures are gone.</p>"
        facts = [heads[key][run] for key in ("subject", "preset", "status")]
        told = " · ".join([*(str(fact) for fact in facts if fact), duration(float(heads["duration_s"][run]))])
        cells.append(f'<article><h3>{html.escape(run)}</h3><p class="soft">{html.escape(told)}</p>{shown}</article>')
    return f'<div class="runs">{"".join(cells)}</div>'


def _settings(params: Mapping[str, Mapping[str, Any]], runs: Sequence[str]) -> str:
    if not params:
        return "<p>None: the runs were made with the same settings, and found the same of the photos.</p>"
    head = "".join(f'<th scope="col">{html.escape(run)}</th>' for run in runs)
    rows = "".join(
        f'<tr><th scope="row"><code>{html.escape(key)}</code></th>'
        + "".join(f'<td class="text">{html.escape(_short(cells[run]))}</td>' for run in runs)
        + "</tr>"
        for key, cells in params.items()
    )
    said = "Settings, and what the runs found, such as from where the photos were taken."
    table = wide_table("Parameters", f'<th scope="col">parameter</th>{head}', rows)
    return f"<p>{said}</p>{table}"


def _short(value: object) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]}…"
