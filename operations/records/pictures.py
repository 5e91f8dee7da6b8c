"""A step's pictures in MLflow: one file each, and as images by step what shows how something grows.

MLflow's image grid plays only what `log_image` has logged with a key and a step. It stores these twice, as PNG and as a
thumbnail, under names with the time; so only a series is logged that way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import mlflow
import numpy as np
from mlflow.tracking import MlflowClient
from PIL import Image
from torch import Tensor

from dreambooth3d.artifacts import AssetBundle
from dreambooth3d.images import to_pil
from dreambooth3d.record import StepRecord

FOLDER = "pictures"
_GRID_FOLDER = "images"
STRIP = f"{FOLDER}/asset.png"
"""The asset from all around, small enough for a row's description, of which MLflow shows the first 100 pixels."""
_STRIP_VIEWS, _STRIP_HEIGHT_PX, _STRIP_WIDTH_PX = 8, 50, 640
_FRAMES = re.compile(r"frames/\d{3}\.png")
_PAPER = 250
"""From which a channel counts as the white behind the asset."""
_OF_SERIES = re.compile(r"(?P<key>.+)/(?P<step>\d+)")


def picture_file(step: str, name: str) -> str:
    """Where a step's picture lies in its row."""
    return f"{FOLDER}/{step}_{name.replace('/', '_')}.png"


def log_pictures(record: StepRecord) -> None:
    """Log a record's pictures to the active run; those called `<key>/<number>` are a series by step.

    May be done again: a file takes the place of itself, and what is in a series already stays.
    """
    series: dict[str, dict[int, Tensor]] = {}
    for name, image in record.images.items():
        found = _OF_SERIES.fullmatch(name)
        if found:
            series.setdefault(f"{record.name}/{found['key']}", {})[int(found["step"])] = image
        else:
            mlflow.log_image(to_pil(image), artifact_file=picture_file(record.name, name), synchronous=True)
    if series:
        _log_series(series)


def _log_series(series: Mapping[str, Mapping[int, Tensor]]) -> None:
    run = mlflow.active_run()
    assert run is not None
    there = [entry.path for entry in MlflowClient().list_artifacts(run.info.run_id, _GRID_FOLDER)]
    for key, images in series.items():
        for step, image in images.items():
            begin = f"{_GRID_FOLDER}/{key.replace('/', '~')}+step+{step}+"
            if not any(path.startswith(begin) for path in there):
                mlflow.log_image(to_pil(image), key=key, step=step, synchronous=True)


def log_strip(bundle: AssetBundle) -> bool:
    """Log some of the turntable's views side by side to the active run; whether the bundle has a turntable."""
    names = [name for name in bundle.files if _FRAMES.fullmatch(name)]
    if not names:
        return False
    chosen = [names[round(place * len(names) / _STRIP_VIEWS) % len(names)] for place in range(_STRIP_VIEWS)]
    mlflow.log_image(strip([_frame(Path(bundle.folder) / name) for name in chosen]), STRIP, synchronous=True)
    return True


def _frame(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")


def strip(frames: list[Image.Image]) -> Image.Image:
    """Views of one size side by side, without the white that all of them have around the asset."""
    seen = np.min([np.asarray(frame).min(-1) for frame in frames], axis=0) < _PAPER
    box = Image.fromarray(seen).getbbox() or (0, 0, *frames[0].size)
    parts = [frame.crop(box) for frame in frames]
    width, height = parts[0].size
    scale = min(_STRIP_HEIGHT_PX / height, _STRIP_WIDTH_PX / len(parts) / width)
    width, height = max(1, int(width * scale)), max(1, round(height * scale))
    row = Image.new("RGB", (len(parts) * width, height), "white")
    for place, part in enumerate(parts):
        row.paste(part.resize((width, height), Image.Resampling.LANCZOS), (place * width, 0))
    return row
