"""What the pipeline makes of the photos alone: whose masks and cameras are how good? On a CPU, set by set."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from benchmarks.photo_cameras import heading_error, relative_errors
from benchmarks.real.layout import MaskedPhotos, PhotoSet
from benchmarks.real.plan import with_masks
from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.models import ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.evaluation.clip import ClipScorer, pinned, scorer_ref
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.photos.cameras.locate import locate_photos
from dreambooth3d.photos.cameras.prior import view_prior, views_digest
from dreambooth3d.photos.check import check_photos
from dreambooth3d.photos.models import photo_models
from dreambooth3d.photos.quality import pad_mask, shrink
from dreambooth3d.photos.reading import MAX_SIDE_PX
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

SOURCES = {"embedded": "learned", "auto": "auto"}
"""Rows of the table of masks, and the settings of photos.masks that they are."""
FOUND, GIVEN = "found_masks", "true_masks"
HALF = 0.5


@dataclass(frozen=True)
class Measured:
    """What was measured of photo sets, one JSON file each in a folder."""

    folder: Path

    def file(self, key: str) -> Path:
        """The file of a set."""
        return self.folder / f"photos-{key}.json"

    def load(self, key: str) -> dict[str, Any] | None:
        """What was measured of a set with the networks that there are now, or None."""
        if not self.file(key).exists():
            return None
        found = json.loads(self.file(key).read_text())
        return found if found["models"] == models_now() else None

    def save(self, key: str, values: dict[str, Any]) -> None:
        """Keep what was measured."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.file(key).with_suffix(".partial")
        unfinished.write_text(json.dumps(values | {"models": models_now()}, indent=1))
        unfinished.replace(self.file(key))


def models_now() -> dict[str, str]:
    """The networks that make masks and name views, by their digests."""
    return dict(photo_models(PhotosConfig())) | {"selector": scorer_ref(ScorersConfig().selector).digest}


def measure_pending(
    sets: Sequence[PhotoSet | MaskedPhotos], measured: Measured, workers: int, threads: int, deadline: float
) -> Iterator[str]:
    """Measure what has not been measured yet, side by side; yields a line for each set."""
    pending = [each for each in sets if measured.load(each.key) is None]
    if workers == 1 or len(pending) < 2:
        for each in pending:
            yield _told(each.key, partial(_measure_until, each, measured, threads, deadline))
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        running = {pool.submit(_measure_until, each, measured, threads, deadline): each.key for each in pending}
        for future in as_completed(running):
            yield _told(running[future], future.result)


def _told(key: str, result: Callable[[], str]) -> str:
    try:
        return f"photos of {key}: {result()}"
    except Exception:  # one set that fails must not take the others with it
        return f"photos of {key}: FAILED {traceback.format_exc(limit=-4)}"


def _measure_until(photos: PhotoSet | MaskedPhotos, measured: Measured, threads: int, deadline: float) -> str:
    if time.time() > deadline:
        return "left for the next call"
    torch.set_num_threads(threads)
    started = time.time()
    values = measure(photos)
    measured.save(photos.key, values)
    mean = torch.tensor([row["iou"] for row in values["masks"]["auto"]]).mean().item()
    return f"mean IoU of masks {mean:.3f} ({time.time() - started:.0f} s)"


def measure(photos: PhotoSet | MaskedPhotos) -> dict[str, Any]:
    """Masks of each photo by each source; where the truth is known also cameras, with found and with true masks."""
    true = [true_mask(path) for path in photos.masks]
    with TemporaryDirectory() as work:
        noun = photos.about["class_noun"] if isinstance(photos, PhotoSet) else "object"
        config = PhotosConfig(dir=str(alone(photos.photos, Path(work) / "photos")), class_noun=noun)
        found = {row: checked(config.model_copy(update={"masks": name})) for row, name in SOURCES.items()}
        values: dict[str, Any] = {"masks": {row: _mask_rows(each, true) for row, each in found.items()}}
        if isinstance(photos, PhotoSet):
            given = checked(with_masks(photos, Path(work) / "masked"))
            values["cameras"] = {FOUND: _camera_row(found["auto"], photos), GIVEN: _camera_row(given, photos)}
    return values


def checked(config: PhotosConfig) -> SubjectPhotos:
    """The photos as the pipeline reads and masks them."""
    with TemporaryDirectory() as work:
        runtime = Runtime(StepLog("validate_photos"), Path(work), torch.device("cpu"), progress=False)
        return check_photos(config, "", photo_models(config), runtime)


def overlaps(masks: Sequence[Tensor], true: Sequence[Tensor]) -> list[float]:
    """Intersection over union at one half, of each photo's mask (side, side) with the true one (side, side)."""
    pairs = [(mask > HALF, other > HALF) for mask, other in zip(masks, true, strict=True)]
    return [((one & other).sum() / (one | other).sum().clamp(min=1)).item() for one, other in pairs]


def true_mask(path: Path) -> Float[Tensor, "side side"]:
    """(side, side) in [0, 1] of the mask in a file, shrunk and padded as the pipeline does it with its photo."""
    with Image.open(path) as image:
        mask = pad_mask(shrink(np.asarray(image.convert("L")), MAX_SIDE_PX))
    return torch.from_numpy(mask).float() / 255


def alone(photos: Sequence[Path], folder: Path) -> Path:
    """A folder with the photos and nothing beside them."""
    folder.mkdir(parents=True)
    for photo in photos:
        shutil.copyfile(photo, folder / photo.name)
    return folder


def _mask_rows(photos: SubjectPhotos, true: Sequence[Tensor]) -> list[dict[str, Any]]:
    facts = photos.facts
    columns = (facts["file"], overlaps(photos.masks, true), facts["mask_source"], facts["mask_confidence"])
    names = ("file", "iou", "source", "confidence")
    return [
        dict(zip(names, row, strict=True)) | {"trusted": trusted}
        for *row, trusted in zip(*columns, photos.trusted.tolist(), strict=True)
    ]


def _camera_row(photos: SubjectPhotos, truth: PhotoSet) -> dict[str, Any]:
    """How the cameras are told: those of all photos, errors of azimuths but for a common turn, and that turn."""
    selector = ClipScorer.load(pinned(scorer_ref(ScorersConfig().selector)))
    started = time.perf_counter()
    named = name_photo_views(photos, selector)
    cameras = locate_photos(named, view_prior(named, views_digest())).cameras
    seconds = time.perf_counter() - started
    if cameras is None:
        raise ValueError("locate_photos has told nothing of the cameras")
    known = ~cameras.azimuth_deg.isnan()
    row: dict[str, Any] = {"located": known.float().mean().item(), "seconds": seconds, "azimuth_off_deg": []}
    if known.any():
        azimuths = cameras.azimuth_deg[known], truth.cameras.cameras.azimuth_deg[known]
        row |= {"azimuth_off_deg": relative_errors(*azimuths).tolist(), "turn_deg": heading_error(*azimuths)}
    return row
