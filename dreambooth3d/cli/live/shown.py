"""What the live view shows, read from the folder that stages write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dreambooth3d.live import Growth, Status

SIDES = {0: "front", 90: "left", 180: "back", 270: "right"}
VIEW_PX = 192
SHOWN_VALUES = 8
ASSET_PREVIEWS = "previews"
"""The picture that shows what the views show."""
WAITING = "Waiting for the first stage. Stages whose results are in the cache are left out, and show nothing."


def four_sides(grown: Growth) -> UInt8[np.ndarray, "height width 3"]:
    """The views nearest to front, left, back and right, two by two."""
    views = []
    for side in SIDES:
        away = np.abs((grown.azimuths_deg - side + 180) % 360 - 180)
        image = Image.fromarray(grown.views[int(away.argmin())])
        views.append(np.asarray(image.resize((VIEW_PX, VIEW_PX), Image.Resampling.BICUBIC)))
    return np.concatenate([np.concatenate(views[:2], axis=1), np.concatenate(views[2:], axis=1)])


def heading(status: Status | None) -> str:
    """Stage and step in Markdown."""
    if status is None:
        return WAITING
    step = "" if status.step is None else f", step {status.step}"
    before = ", ".join(dict.fromkeys(status.stages[:-1]))
    return f"**{status.stage}**{step}" + (f"\n\nBefore: {before}" if before else "")


def caption(status: Status) -> str:
    """Of the views: which is which, and from when they are."""
    step = "" if status.grown_step is None else f", step {status.grown_step}"
    return f"{', '.join(SIDES.values())} ({status.grown_in}{step})"


def table(values: Mapping[str, float]) -> str:
    """Losses first, as a table in Markdown."""
    rows = [f"| {name} | {value:.4g} |" for name, value in ranked(values)]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""


def ranked(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """The figures that say most: the loss, its parts, then others; guards and what is no number are left out."""
    order = ("loss", "opacity", "ms_per_step", "learning_rate")
    known = [(name, value) for name, value in values.items() if math.isfinite(value) and not name.startswith("guards/")]
    # Of the rest, losses before what a guidance says of itself.
    known.sort(key=lambda entry: (order.index(entry[0]) if entry[0] in order else len(order), "/" in entry[0]))
    return known[:SHOWN_VALUES]


def curve(steps: list[int], values: list[float]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None:
    """A loss by step for a chart, by at most 500 points; None where there are too few of them."""
    if len(steps) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(steps) - 1, 500).astype(int))
    return np.asarray(steps, float)[chosen], np.asarray(values, float)[chosen]


def version(folder: Path, name: str) -> int:
    """Changes whenever a file of the folder is replaced; 0 while it is not there."""
    try:
        return (folder / name).stat().st_mtime_ns
    except OSError:
        return 0
