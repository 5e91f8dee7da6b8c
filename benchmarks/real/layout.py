"""Folders of photo sets whose truth is known: KIND/SUBJECT/ with photos, masks, truth and subject.json."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreambooth3d.cameras import TURNTABLE_FRAMES, Cameras, wrap_degrees
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.evaluation.pixels import Views
from dreambooth3d.images import from_pil
from dreambooth3d.photos.cameras.placement import PlacedCameras
from dreambooth3d.photos.subject import mask_file, photo_files

KINDS = ("studio", "casual")
"""What a folder that renders its photos itself is asked for."""
RENDERER = "make.py"
SUBJECT = "subject.json"
SHOT = ("azimuth_deg", "elevation_deg", "distance", "fov_y_deg", "roll_deg", "shift_of_frame")


class LayoutError(DreamBooth3DError):
    """A folder of photo sets is not laid out as the benchmark needs it."""


@dataclass(frozen=True)
class PhotoSet:
    """Photos of one subject with their truth.

    Attributes:
        folder: with photos/, masks/, truth/ and subject.json.
        kind: how they were taken, such as `casual`.
        name: of the subject.
    """

    folder: Path
    kind: str
    name: str

    @property
    def key(self) -> str:
        """Names the set among all."""
        return f"{self.kind}-{self.name}"

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """What subject.json says.

        Raises:
            LayoutError: it cannot be read, or lacks something.
        """
        path = self.folder / SUBJECT
        try:
            about = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise LayoutError(f"{path}: cannot be read ({error}). It names class_noun and shots.") from None
        shots = about.get("shots") if isinstance(about, dict) else None
        if not isinstance(shots, list) or "class_noun" not in about:
            raise LayoutError(f"{path}: lacks class_noun, or shots with one entry for each photo.")
        lacking = [name for name in SHOT if any(name not in shot for shot in shots)]
        if lacking or len(shots) != len(self.photos):
            what = f"a shot without {', '.join(lacking)}" if lacking else f"{len(shots)} shots"
            raise LayoutError(f"{path}: {what} for the {len(self.photos)} photos; each needs {', '.join(SHOT)}.")
        return about

    @cached_property
    def photos(self) -> list[Path]:
        """The photos' files, sorted by name as the pipeline sorts them."""
        folder = self.folder / "photos"
        return photo_files(folder) if folder.is_dir() else []

    @property
    def masks(self) -> list[Path]:
        """The true masks' files, in the photos' order.

        Raises:
            LayoutError: one is missing.
        """
        files = [self.folder / "masks" / f"{photo.stem}.png" for photo in self.photos]
        _require(files)
        return files

    @property
    def cameras(self) -> PlacedCameras:
        """The photos' true cameras.

        The shift of the frame moves the image in its plane: as much as a turn of the camera does that brings the
        subject's centre to the same place, but for its perspective (of 8 % of the frame, below 1 % of it at the rim).
        """
        shots = self.about["shots"]
        azimuth, elevation, distance, fov, roll = (
            torch.tensor([float(shot[name]) for shot in shots]) for name in SHOT[:-1]
        )
        right, down = torch.tensor([shot["shift_of_frame"] for shot in shots]).float().unbind(-1)
        centre = torch.stack([2 * right, -2 * down], dim=-1)
        return PlacedCameras(Cameras(wrap_degrees(azimuth), elevation, distance, fov), roll, centre)

    def check(self) -> None:
        """Check that all is there.

        Raises:
            LayoutError: something is not.
        """
        if self.about and self.masks:
            _require(self._truth_files)

    @property
    def _truth_files(self) -> list[Path]:
        """Of the true views, then of their masks."""
        names = [f"{index:03d}.png" for index in range(TURNTABLE_FRAMES)]
        return [self.folder / "truth" / name for name in (*names, *(f"mask_{name}" for name in names))]

    @property
    def truth(self) -> Views:
        """The turntable's true views on white.

        Raises:
            LayoutError: they are not there.
        """
        files = self._truth_files
        _require(files)
        images = []
        for path in files[:TURNTABLE_FRAMES]:
            with Image.open(path) as image:
                images.append(from_pil(image))
        return Views(torch.stack(images), torch.stack([read_grey(path) for path in files[TURNTABLE_FRAMES:]]))


@dataclass(frozen=True)
class MaskedPhotos:
    """Photos with true masks beside them (NAME_mask.png) of which nothing else is known."""

    folder: Path

    @property
    def key(self) -> str:
        """Names the set among all."""
        return self.folder.name

    @property
    def photos(self) -> list[Path]:
        """The photos' files."""
        return [photo for photo in photo_files(self.folder) if mask_file(photo) is not None]

    @property
    def masks(self) -> list[Path]:
        """The true masks' files, in the photos' order."""
        return [mask for photo in self.photos if (mask := mask_file(photo)) is not None]


def _require(files: Sequence[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise LayoutError(
                f"{file}: there is no such file. A photo set has masks/NAME.png for each photo, and truth/000.png to "
                "035.png with truth/mask_000.png to mask_035.png."
            )


def read_grey(path: Path) -> Float[Tensor, "height width"]:
    """(height, width) in [0, 1] of a grey picture."""
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("L")).astype(np.float32) / 255)


def photo_sets(folder: Path, kinds: Sequence[str] = (), subjects: Sequence[str] = ()) -> list[PhotoSet]:
    """The photo sets in a folder, by kind (studio and casual first) and name.

    Args:
        folder: with KIND/SUBJECT/subject.json.
        kinds: only these.
        subjects: only these.

    Raises:
        LayoutError: there is none.
    """
    found = [
        PhotoSet(path.parent, path.parent.parent.name, path.parent.name)
        for path in folder.glob(f"*/*/{SUBJECT}")
        if (not kinds or path.parent.parent.name in kinds) and (not subjects or path.parent.name in subjects)
    ]
    if not found:
        asked = " of ".join(" or ".join(names) for names in (subjects, kinds) if names)
        what = f"no photo sets {asked}".strip()
        raise LayoutError(f"{folder}: {what}. It needs KIND/SUBJECT/{SUBJECT}, or a {RENDERER} that renders that.")
    return sorted(found, key=lambda each: (_rank(each.kind), each.kind, each.name))


def masked_photos(folder: Path) -> list[MaskedPhotos]:
    """The folders of photos with masks beside them."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return [masked for path in inside if (masked := MaskedPhotos(path)).photos]


def photo_set(folder: Path, key: str) -> PhotoSet:
    """The set of a key."""
    return next(each for each in photo_sets(folder) if each.key == key)


def rendered(folder: Path, to: Path) -> Path:
    """The folder itself, or where its own renderer has put the photo sets.

    Raises:
        LayoutError: there is no such folder, or its renderer fails.
    """
    if not folder.is_dir():
        raise LayoutError(f"{folder}: there is no such folder. Give one with photo sets, as REAL=folder.")
    if not (folder / RENDERER).is_file():
        return folder
    for kind in KINDS:
        if not (to / kind).is_dir():
            _render(folder / RENDERER, to, kind)
    return to


def _render(renderer: Path, to: Path, kind: str) -> None:
    """Render one kind; what is broken off is not taken for finished."""
    partial = to / f".{kind}"
    partial.mkdir(parents=True, exist_ok=True)
    print(f"rendering {kind} photos with {renderer}", flush=True)
    done = subprocess.run([sys.executable, str(renderer), str(partial), kind], stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LayoutError(
            f"{renderer}: rendering failed ({reason}). What it needs comes with `make setup`; or give the folder that "
            "it has rendered elsewhere."
        )
    partial.rename(to / kind)


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
