"""What a running stage shows of itself: a folder that its process writes, and that whoever watches reads.

The folder holds `status.json`, `series.jsonl` with a point per line, `asset.npz` with the last previews of the asset as
views and points, and `picture.png` with the last other picture. Every file but the series is replaced as a whole.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

logger = logging.getLogger(__name__)
LIVE_VARIABLE = "DREAMBOOTH3D_LIVE"
STATUS, SERIES, ASSET, PICTURE = "status.json", "series.jsonl", "asset.npz", "picture.png"
WRITE_S = 1.0


@dataclass(frozen=True)
class Growth:
    """An asset as it is at present.

    Attributes:
        views: uint8 (n, height, width, 3).
        azimuths_deg: (n,) of the views; 0 is the front, 90 the subject's left.
        points: (k, 3) of the surface that the views show, in world units.
        colors: uint8 (k, 3) of the points.
    """

    views: UInt8[np.ndarray, "n height width 3"]
    azimuths_deg: Float[np.ndarray, " n"]
    points: Float[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        stage: the present one, or the last.
        stages: all so far, the present one last.
        step: of the last point of a series; None before the first.
        values: the stage's last value of each series.
        picture: what the last picture is called.
        grown: when the asset was last written, as `time.time` counts; None before.
        grown_step: the step of that, None where none was known.
        grown_in: the stage of that.
    """

    stage: str
    stages: tuple[str, ...] = ()
    step: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    picture: str = ""
    grown: float | None = None
    grown_step: int | None = None
    grown_in: str = ""


class LiveFolder:
    """Writes what one stage shows; a `dreambooth3d.record.Watcher`.

    A failure to write is said once, and ends the writing, never the stage.

    Args:
        folder: made if need be.
        stage: which begins now.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder = folder
        self._points: list[str] = []
        self._last, self._broken = 0.0, False
        before = read_status(folder)
        stages = () if before is None else before.stages
        kept = {} if before is None else {"grown": before.grown, "grown_step": before.grown_step,
                                          "grown_in": before.grown_in}  # fmt: skip
        self._status: dict[str, Any] = {"stage": stage, "stages": [*stages, stage], "values": {}, **kept}
        self._safely(self._begin)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take a point; what has come together is written once a second."""
        self._status["step"] = step
        self._status["values"] |= values
        self._points.append(json.dumps({"stage": self._status["stage"], "step": step, "values": dict(values)}))
        if time.monotonic() - self._last >= WRITE_S:
            self._safely(self._flush)

    def image(self, name: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take a picture in place of the last."""
        self._safely(lambda: self._picture(name, image))

    def growth(self, make: Callable[[], Growth]) -> None:
        """Take the asset as it is now."""
        self._safely(lambda: self._grow(make()))

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._flush()

    def _picture(self, name: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
        self._replace(PICTURE, lambda file: Image.fromarray(image).save(file, "png", compress_level=1))
        self._status["picture"] = name
        self._flush()

    def _grow(self, grown: Growth) -> None:
        self._replace(ASSET, lambda file: np.savez(file, **vars(grown)))
        self._status |= {"grown": time.time(), "grown_step": self._status.get("step"),
                         "grown_in": self._status["stage"]}  # fmt: skip
        self._flush()

    def _flush(self) -> None:
        if self._points:
            with (self.folder / SERIES).open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in self._points))
            self._points.clear()
        text = json.dumps(self._status).encode()
        self._replace(STATUS, lambda file: file.write(text))
        self._last = time.monotonic()

    def _replace(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        partial = self.folder / f".{name}"
        with partial.open("wb") as file:
            write(file)
        os.replace(partial, self.folder / name)

    def _safely(self, act: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            act()
        # The disk is full, the folder is gone: whatever it is, the training is worth more.
        except Exception as error:
            self._broken = True
            logger.warning("%s: what the live view shows cannot be written (%s). The run goes on.", self.folder, error)


def live_folder(stage: str) -> LiveFolder | None:
    """Where the present process is to show a stage that begins; None where nobody watches."""
    folder = os.environ.get(LIVE_VARIABLE)
    return LiveFolder(Path(folder), stage) if folder else None


def read_status(folder: Path) -> Status | None:
    """Where a run stands, None before its first stage."""
    try:
        values = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        return Status(**values | {"stages": tuple(values["stages"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_growth(folder: Path) -> Growth | None:
    """The asset as it was last shown, None before."""
    try:
        with np.load(folder / ASSET, allow_pickle=False) as arrays:
            return Growth(**{name: arrays[name] for name in ("views", "azimuths_deg", "points", "colors")})
    except (OSError, ValueError, KeyError):
        return None


def read_picture(folder: Path) -> UInt8[np.ndarray, "height width 3"] | None:
    """The last other picture, None before."""
    try:
        with Image.open(folder / PICTURE) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        return None


class Series:
    """One series of all stages as it grows: each look reads only what was written since the last.

    Args:
        folder: that stages write.
        name: of the series.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file, self._name = folder / SERIES, name
        self._read_bytes = 0
        self._points: dict[str, tuple[list[int], list[float]]] = {}

    def of(self, stage: str) -> tuple[list[int], list[float]]:
        """Steps and values of a stage so far."""
        with suppress(OSError):
            self._read()
        return self._points.get(stage, ([], []))

    def _read(self) -> None:
        with self._file.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read_bytes:  # another file has taken its place
                self._read_bytes, self._points = 0, {}
            file.seek(self._read_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # half a line is being written
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError):  # what a full disk has cut off
                point = json.loads(line)
                if self._name in point["values"]:
                    steps, values = self._points.setdefault(point["stage"], ([], []))
                    steps.append(point["step"])
                    values.append(point["values"][self._name])
