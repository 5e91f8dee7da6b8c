"""A step's pictures in MLflow: one file each, and as images by step what shows how something grows.

MLflow's image grid plays only what `log_image` has logged with a key and a step. It stores these twice, as PNG and as a
thumbnail, under names with the time; so only a series is logged that way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import mlflow
from mlflow.tracking import MlflowClient
from torch import Tensor

from dreambooth3d.images import to_pil
from dreambooth3d.record import StepRecord

FOLDER = "pictures"
_GRID_FOLDER = "images"
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
