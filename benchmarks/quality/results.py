"""Finished runs on disk: a JSON, a small picture and a mesh where one was exported; what is there is not run again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.quality.plan import Run, config_digest
from benchmarks.quality.stages import Outcome
from dreambooth3d.export.bundle import GLB
from dreambooth3d.images import from_pil, to_pil


@dataclass(frozen=True)
class Results:
    """The results of one table, in a folder.

    Attributes:
        folder: where they lie.
        quick: whether the runs take the quick settings.
    """

    folder: Path
    quick: bool = False

    def __contains__(self, run: Run) -> bool:
        """Whether the run is finished, as the preset and the overrides are now."""
        return self._read(run) is not None

    def save(self, run: Run, outcome: Outcome, about: dict[str, Any]) -> None:
        """Keep a run; the JSON comes last, so that its presence means that all is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sheet = torch.cat(list(outcome.views), dim=2)
        to_pil(sheet).save(self._picture(run), lossless=True)
        if outcome.exported is not None:
            shutil.copyfile(outcome.exported / GLB, self.mesh(run))
        values = {
            "method": run.method.name,
            "overrides": list(run.method.overrides),
            "config": config_digest(run.method, self.quick),
            "subject": run.subject,
            "seed": run.seed,
            "metrics": outcome.metrics,
            "seconds": outcome.seconds,
            "peak_mib": outcome.peak_mib,
            "notes": outcome.notes,
            **about,
        }
        partial = self._file(run).with_suffix(".partial")
        partial.write_text(json.dumps(values, indent=1))
        partial.replace(self._file(run))

    def load(self, runs: list[Run]) -> list[dict[str, Any]]:
        """Those of the runs that are finished."""
        return [found for run in runs if (found := self._read(run)) is not None]

    def views(self, method: str, subject: str, seed: int = 0) -> Tensor | None:
        """(4, 3, h, w) front, left, back and right side of a finished run, or None."""
        path = self.folder / f"{method}-{subject}-{seed}.webp"
        if not path.exists():
            return None
        with Image.open(path) as image:
            return torch.stack(from_pil(image).chunk(4, dim=2))

    def mesh(self, run: Run) -> Path:
        """Where the exported mesh of a run lies, if it was exported."""
        return self.folder / f"{run.key}.glb"

    def _read(self, run: Run) -> dict[str, Any] | None:
        """What was saved of the run with its present settings, or None."""
        if not self._file(run).exists():
            return None
        found = json.loads(self._file(run).read_text())
        return found if found.get("config") == config_digest(run.method, self.quick) else None

    def _file(self, run: Run) -> Path:
        return self.folder / f"{run.key}.json"

    def _picture(self, run: Run) -> Path:
        return self.folder / f"{run.key}.webp"
