"""`dreambooth3d runs`: rows of MLflow as tables or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from dreambooth3d.cli.fitting import print_table
from dreambooth3d.environment import console, quiet
from dreambooth3d.errors import RunNotFoundError
from operations.records import tables
from operations.records.keys import CACHED, SECONDS
from operations.records.reading import Reader

COMPARED = ("psnr", "psnr_fg", "clip_i", "r_precision")
STAGES, DIFFERENCES = 3, 3
SUBJECT_LETTERS = 24
SPARE = ("started", "r_precision", "psnr", "clip_i", "preset", "psnr_fg")
"""What a list leaves out in a narrow terminal, the first one first; a run's name says when it started."""


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
    found = tables.briefs(Reader.of_active_state(), limit)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("There are no runs yet. `dreambooth3d train demo` starts one.", err=True)
        return
    columns = ("run", "subject", "preset", "status", "started", *tables.FIGURES)
    rows = []
    for row in found:
        started = datetime.fromtimestamp(row["started"]).strftime("%Y-%m-%d %H:%M")
        shown = {**row, "started": started, "subject": _short(row["subject"])}
        rows.append([number(shown[name]) for name in columns])
    print_table(columns, rows, SPARE)
    if dead := [row["run"] for row in found if row["status"] == "dead"]:
        typer.echo(f"{len(dead)} of them died without a word; `dreambooth3d runs clean` marks them.", err=True)
    if lacking := sum(row["status"] == "incomplete" for row in found):
        typer.echo(f"MLflow lacks figures of {lacking} of them: `dreambooth3d runs complete --all`.", err=True)


def _short(name: str) -> str:
    """The beginning of a subject's name: that of an asset from a prompt is all of the prompt."""
    return name if len(name) <= SUBJECT_LETTERS else f"{name[: SUBJECT_LETTERS - 1].rstrip()}…"


def show_run(name: str, as_json: bool, everything: bool) -> None:
    """Print one run: what is looked at first, or everything that is known."""
    quiet()
    values = tables.describe(Reader.of_active_state(), name)
    if as_json:
        print_json(values)
        return
    if not everything:
        # Not wrapped, so that paths can be copied.
        console().print("\n".join(_first_lines(values)), soft_wrap=True, highlight=False, markup=False)
        return
    out = console()
    out.print(f"{values['run']}: {values['status']}, {values['duration_s']} s", highlight=False)
    for title in ("tags", "metrics", "params", "artifacts"):
        table = Table(title=title, title_justify="left", show_header=False)
        for key, value in values[title].items():
            table.add_row(key, number(value))
        out.print(table)


def _first_lines(values: Mapping[str, Any]) -> list[str]:
    """Ten lines at most: how the run stands, how good the asset is, where the time went, and where the files are."""
    metrics, tags, artifacts = values["metrics"], values["tags"], values["artifacts"]
    commit = tags.get("git.commit", "").removeprefix("unknown")[:12]
    lines = {
        "of": ", ".join(filter(None, [values["subject"], values["preset"], commit])),
        "pixels": _figures(metrics, "psnr", "psnr_fg", "ssim", "mask_iou"),
        "likeness": _figures(metrics, "clip_i", "clip_t", "r_precision"),
        "views": _figures(metrics, "janus_rate", "janus_excess", "front_recall"),
        "time": _longest_stages(metrics),
        "died": tags.get("died", ""),
        "asset": artifacts.get("asset", ""),
        "viewer": artifacts.get("page", ""),
    }
    rest = sum(len(values[title]) for title in ("tags", "metrics", "params", "artifacts"))
    head = f"{values['run']}: {values['status']}, {values['duration_s']:.0f} s"
    known = [f"  {name:<9} {text}" for name, text in lines.items() if text]
    return [head, *known, f"  --all shows {rest} entries: tags, metrics, parameters and files; --json the same."]


def _figures(metrics: Mapping[str, float], *names: str) -> str:
    """Figures of the asset, as the evaluation of a run with photos or of one with a prompt alone has them."""
    found = {name: metrics.get(f"evaluate/{name}", metrics.get(f"evaluate_prompt/{name}")) for name in names}
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items() if value is not None)


def _longest_stages(metrics: Mapping[str, float]) -> str:
    """Where most of the time went, cached stages aside."""
    seconds = {
        stage: value
        for key, value in metrics.items()
        if (stage := key.removeprefix(SECONDS)) != key and not metrics.get(f"{CACHED}{stage}")
    }
    longest = sorted(seconds.items(), key=lambda entry: -entry[1])[:STAGES]
    return ", ".join(f"{stage} {value:.0f} s" for stage, value in longest)


def show_comparison(names: Sequence[str], as_json: bool, everything: bool) -> None:
    """Print runs side by side: what is compared first, or everything that was measured or differs.

    Raises:
        RunNotFoundError: fewer than two runs are named, or one does not exist.
    """
    require_several(names)
    quiet()
    values = tables.compare(Reader.of_active_state(), names)
    if as_json:
        print_json(values)
        return
    if not everything:
        _print_first(values)
        return
    for title, found in values.items():
        table = Table(title=title, title_justify="left")
        columns = list(next(iter(found.values()), {}))
        for column in ["", *columns]:
            table.add_column(column)
        for key, cells in found.items():
            table.add_row(key, *(number(cells[column]) for column in columns))
        console().print(table)


def require_several(names: Sequence[str]) -> None:
    """Refuse to compare fewer than two runs.

    Raises:
        RunNotFoundError: fewer are named.
    """
    if len(names) < 2:
        raise RunNotFoundError("runs compare: name two runs at least. `dreambooth3d runs list` shows them.")


def _print_first(values: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Ten lines: how the runs stand, what they were for, and the figures that are compared first."""
    runs, metrics, params = values["runs"], values["metrics"], values["params"]
    columns = list(runs["status"])
    table = Table(box=None, pad_edge=False)
    for column in ["", *columns]:
        table.add_column(column, overflow="fold")
    for key in ("status", "subject", "preset"):
        table.add_row(key, *(number(runs[key][column]) for column in columns))
    for key in COMPARED:
        cells = metrics.get(f"evaluate/{key}") or metrics.get(f"evaluate_prompt/{key}")
        if cells:
            table.add_row(key, *(number(cells[column]) for column in columns))
    table.add_row("seconds", *(f"{runs['duration_s'][column]:.0f}" for column in columns))
    console().print(table)
    differ = ", ".join(list(params)[:DIFFERENCES]) + (", ..." if len(params) > DIFFERENCES else "")
    told = f"{len(params)} parameters differ{f' ({differ})' if differ else ''}"
    line = f"{told}; --all shows them and {len(metrics)} metrics."
    console().print(line, soft_wrap=True, highlight=False, markup=False)
