"""The recipe once for each photo left out: finished runs are kept, side by side where asked for."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.quality.plan import DEFAULT, Method, load_config
from benchmarks.quality.stages import without_export
from dreambooth3d import recipe
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.evaluation.heldout import HeldOutViews, compare_held_out
from dreambooth3d.images import from_pil, to_pil
from dreambooth3d.in_process import InProcess
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.sources import library_digest
from operations.launch.identity import git_commit

ROWS = ("held out", "asset", "mean photo")
"""Of a picture, from the top."""


@dataclass(frozen=True)
class Leaving:
    """One run of the recipe without one photo.

    Attributes:
        photo: file name of the photo that is left out.
        folder: of the photos.
        class_noun: what they show; None where a `subject.yaml` says so.
        overrides: `key.sub=value` over the preset `configs/bench/dreambooth3d.yaml`.
        quick: few steps and rays, for a CPU.
        seed: of everything random.
    """

    photo: str
    folder: str
    class_noun: str | None
    overrides: tuple[str, ...] = ()
    quick: bool = False
    seed: int = 0

    def config(self) -> TrainingConfig:
        """The whole configuration.

        Raises:
            ConfigError: an override is wrong.
        """
        config = load_config(Method(DEFAULT, DEFAULT, self.overrides), self.quick)
        if not isinstance(config, TrainingConfig):
            raise TypeError(f"{DEFAULT} is no training")
        given = {"subject": None, "dir": self.folder, "class_noun": self.class_noun, "hold_out": (self.photo,)}
        photos = type(config.photos).model_validate(config.photos.model_dump() | given)
        return config.model_copy(update={"photos": photos, "seed": self.seed, "contexts": ()})

    def digest(self) -> str:
        """Names all that the run depends on: photos, settings and code."""
        config = self.config()
        inputs = [config.model_dump_json(), dataset_hash(config.photos), library_digest()]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Finished:
    """Finished runs in a folder: one JSON and one picture each."""

    folder: Path

    def load(self, run: Leaving) -> dict[str, Any] | None:
        """What was kept of a run with its present inputs, or None."""
        file = self._file(run)
        found = json.loads(file.read_text()) if file.exists() else {}
        return found if found.get("digest") == run.digest() else None

    def save(self, run: Leaving, values: dict[str, Any], picture: Tensor | None) -> None:
        """Keep a run; the JSON comes last, so that its presence means that all is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if picture is not None:
            to_pil(picture).save(self._file(run).with_suffix(".webp"), lossless=True)
        partial = self._file(run).with_suffix(".partial")
        partial.write_text(json.dumps({"photo": run.photo, "digest": run.digest(), **values}, indent=1))
        partial.replace(self._file(run))

    def picture(self, run: Leaving) -> Tensor | None:
        """(3, 3 * size, size): photo, asset and mean photo, one above the other; None where nothing was compared."""
        from PIL import Image

        path = self._file(run).with_suffix(".webp")
        if not path.exists():
            return None
        with Image.open(path) as image:
            return from_pil(image)

    def _file(self, run: Leaving) -> Path:
        return self.folder / f"{run.photo}.json"


def leave_out(run: Leaving, finished: Finished, device: str) -> dict[str, Any]:
    """Run the recipe without a photo, compare that with the asset, and keep the result.

    Raises:
        DreamBooth3DError: as for `recipe.run`.
    """
    started = time.time()
    with tempfile.TemporaryDirectory() as work:
        run_stage = InProcess(Path(work), torch.device(device), progress=False)
        config = run.config()
        made = recipe.run(config, without_export(run_stage))
        runtime = Runtime(StepLog("evaluate"), Path(work) / "registration", torch.device(device), progress=False)
        views = compare_held_out(made.asset, made.photos, config.evaluate, runtime)
    values = {
        "metrics": {name: value for name, value in made.report.metrics.items() if name in _SHOWN},
        "registered": made.report.record.params["heldout_photos"],
        "located": int(made.photos.facts["azimuth_deg"].notna().sum()),
        "photos": len(made.photos.images),
        "seconds": time.time() - started,
        "stages": {stage.name: stage.seconds for stage in run_stage.used},
        "where": f"{machine(device)}, commit {git_commit()}, {datetime.date.today().isoformat()}",
    }
    finished.save(run, values, None if views is None else _picture(views))
    return values


_SHOWN = ("heldout_photo_iou", "heldout_photo_psnr_fg", "heldout_photo_psnr_fg_mean", "clip_i")


def _picture(views: HeldOutViews) -> Tensor:
    shown = list(views.rows().values())
    return torch.cat([images[0] for images in shown], dim=1)


def run_all(
    runs: Sequence[Leaving], finished: Finished, device: str, *, workers: int, threads: int, deadline: float
) -> Iterator[str]:
    """Run what is not finished yet, `workers` at a time; yields a line for each.

    Args:
        deadline: no run begins later (seconds of `time.time()`).
    """
    pending = [run for run in runs if finished.load(run) is None]
    given = (finished, device, threads, deadline)
    if workers == 1:
        yield from (_line(run, *given) for run in pending)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_line, run, *given) for run in pending]):
            yield future.result()


def _line(run: Leaving, finished: Finished, device: str, threads: int, deadline: float) -> str:
    """Do one run, and say how it went."""
    if time.time() > deadline:
        return f"{run.photo}: left for the next call"
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    try:
        values = leave_out(run, finished, device)
    except Exception:  # one failed run must not take the others with it; it is tried again by the next call
        return f"{run.photo}: FAILED {traceback.format_exc(limit=-4)}"
    found = ", ".join(f"{name} {value:.2f}" for name, value in values["metrics"].items())
    return f"{run.photo}: {found} ({values['seconds']:.0f} s; {values['registered']})"
