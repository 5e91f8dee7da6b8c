"""What the runs found, as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.heldout.runs import ROWS, Finished, Leaving
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.images import save_image

IOU, PSNR, MEAN = "heldout_photo_iou", "heldout_photo_psnr_fg", "heldout_photo_psnr_fg_mean"
HEAD = (
    "| left out | IoU | PSNR, dB | mean photo, dB | gain, dB | others located |\n|---|---|---|---|---|---|",
    "The mean photo's PSNR is that of the mean of the other photos, each turned so that its subject is in the middle.",
)


def write(name: str, runs: Sequence[Leaving], finished: Finished, folder: Path, command: str) -> str:
    """Write `heldout_NAME.md` and `.png` to a folder; returns the table."""
    found = [(run, finished.load(run)) for run in runs]
    rows = table([(run.photo, values) for run, values in found])
    picture = sheet([finished.picture(run) for run, values in found if values is not None])
    folder.mkdir(parents=True, exist_ok=True)
    about = "; ".join(sorted({values["where"] for _, values in found if values is not None})) or "nothing has run"
    shown = "" if picture is None else f"\n![Photo, asset, mean photo](heldout_{name}.png)\n"
    if picture is not None:
        save_image(picture, folder / f"heldout_{name}.png")
    text = f"# {name}: each photo left out in turn\n\n`{command}`, {about}.\n\n{rows}\n\n{HEAD[1]}\n{shown}"
    (folder / f"heldout_{name}.md").write_text(text)
    return rows


def table(found: Sequence[tuple[str, dict[str, Any] | None]]) -> str:
    """One Markdown row per photo, and their mean over the photos that could be compared."""
    lines = [HEAD[0]]
    compared = []
    for photo, values in found:
        metrics = {} if values is None else values["metrics"]
        located = "" if values is None else f"{values['located']} of {values['photos']}"
        if IOU in metrics:
            compared.append(metrics)
            lines.append(f"| {photo} | {_cells(metrics)} | {located} |")
        else:
            reason = "not run" if values is None else "its mask is not trusted"
            lines.append(f"| {photo} | {reason} | | | | {located} |")
    if compared:
        common = [name for name in (IOU, PSNR, MEAN) if all(name in metrics for metrics in compared)]
        mean = {name: sum(metrics[name] for metrics in compared) / len(compared) for name in common}
        lines.append(f"| mean | {_cells(mean)} | |")
    return "\n".join(lines)


def _cells(metrics: dict[str, float]) -> str:
    baseline = metrics.get(MEAN)
    beside = " | " if baseline is None else f"{baseline:.1f} | {metrics[PSNR] - baseline:+.1f}"
    return f"{metrics[IOU]:.2f} | {metrics[PSNR]:.1f} | {beside}"


def sheet(pictures: Sequence[Tensor | None]) -> Tensor | None:
    """(3, height, width): photos, assets and mean photos of the runs, side by side."""
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        return None
    size = shown[0].shape[-1]
    rows = torch.stack([_three(picture, size) for picture in shown], dim=1)
    return labelled_rows(dict(zip(ROWS, rows, strict=True)), columns=len(shown))


def _three(picture: Tensor, size: int) -> Tensor:
    """(3, 3, size, size): the pictures one above the other, white where there is no mean photo."""
    missing = torch.ones(3, len(ROWS) * size - picture.shape[1], size)
    return torch.stack(torch.cat([picture, missing], dim=1).split(size, dim=1))
