"""What MLflow shows as a row's description: the asset's picture, five figures, and what to open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from operations.records.keys import metric_key
from operations.records.pictures import STRIP

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TAG = "mlflow.note.content"
FIGURES = {
    "evaluate": {"psnr_fg": "dB", "mask_iou": "", "clip_i": "", "r_precision": "", "janus_excess": ""},
    "evaluate_prompt": {"clip_t": "", "r_precision": "", "view_accuracy": "", "janus_rate": "", "front_recall": ""},
}
_FAILED = "**Failed** in "
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~$&-])")


def plain(text: str) -> str:
    """A text on one line that Markdown shows as it stands."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def figures(metrics: Mapping[str, float]) -> list[str]:
    """At most five figures of an asset, such as `psnr_fg 25.31 dB`, by the keys of its row or of its report."""
    return [
        f"{name} {value:.3g} {unit}".strip()
        for step, names in FIGURES.items()
        for name, unit in names.items()
        if (value := metrics.get(metric_key(step, name))) is not None
    ]


def picture(row: str, path: str = STRIP) -> str:
    """Markdown of a picture among a row's files; the address is that which MLflow's own pages ask, relative to them."""
    return f"![asset](get-artifact?path={quote(path, safe='')}&run_uuid={row})"


def of_asset(row: str, run: str, metrics: Mapping[str, float], status: str, shown: bool) -> str:
    """The description of a finished run's row; the figures first, since MLflow folds all but some lines.

    Args:
        row: its id.
        run: name of the pipeline run.
        metrics: of the row.
        status: as `operations.records.status` has it.
        shown: whether the row holds the picture.
    """
    lines = [
        "  \n".join(filter(None, [plain(", ".join(figures(metrics))), picture(row) if shown else ""])),
        "The run was stopped early; the asset is what there was by then." if status == "interrupted" else "",
        "Open `asset/asset.html` among the artifacts to turn it, `asset/asset.glb` in any 3D program, "
        "`report/report.json` for what each figure means. Where the run was started, the same lies in "
        f"`outputs/{run}/`.",
    ]
    return "\n\n".join(line for line in lines if line)


def of_failure(step: str, error: str) -> str:
    """The description of a failed run's row."""
    return f"{_FAILED}{plain(step)}: {plain(error)}"


def write(client: MlflowClient, row: str, text: str) -> None:
    """Describe a row, unless somebody else has; what says that the run failed is replaced."""
    said = client.get_run(row).data.tags.get(TAG, "")
    if not said or said.startswith(_FAILED):
        client.set_tag(row, TAG, text)
