"""How well are the cameras of casual photos found? Photo sets with known cameras, one folder each.

Usage: python -m benchmarks.photo_cameras FOLDER [--found-masks] [--grow PIXELS] [--no-network] [--threads 2]
    [--device auto]

FOLDER/<subject>/photos/*, masks/*.png of the same names, and subject.json with `class_noun` and `shots`: azimuth_deg
and elevation_deg of each photo. The photos go through what `validate_photos` does. Photos do not tell a turn of all
cameras about the subject, so azimuths are compared after the best common one, and that turn is the heading's error,
where the front is azimuth 0. `--found-masks` takes the masks that the photo check finds instead of the true ones,
`--grow` moves their outlines outwards, or inwards where negative; `--no-network` does without the network that tells
views.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.photos.cameras.locate import CPU, locate_photos
from dreambooth3d.photos.cameras.prior import view_prior, views_digest
from dreambooth3d.photos.check import check_photos
from dreambooth3d.photos.masks.choose import mask_models
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime, pick_device

NEAR_DEG = 20.0
SELECTOR = "models/selector"


@dataclass(frozen=True)
class PhotoSet:
    """n photos with true cameras.

    Attributes:
        photos: as the photo check hands them on, views named.
        masks: (n, size, size) true ones, in [0, 1].
        azimuth_deg, elevation_deg: (n,) true ones.
    """

    photos: SubjectPhotos
    masks: Tensor
    azimuth_deg: Tensor
    elevation_deg: Tensor

    @staticmethod
    def read(folder: Path) -> PhotoSet:
        """The set in a folder."""
        truth = json.loads((folder / "subject.json").read_text())
        config = PhotosConfig(dir=str(folder / "photos"), class_noun=truth["class_noun"])
        with tempfile.TemporaryDirectory() as work:
            runtime = Runtime(StepLog("validate_photos"), Path(work), progress=False)
            photos = check_photos(config, "untracked:0", mask_models(config), runtime)
        names = [folder / "masks" / f"{Path(file).stem}.png" for file in photos.facts["file"]]
        masks = [torch.from_numpy(np.asarray(Image.open(name).convert("L")).astype(np.float32) / 255) for name in names]
        angles = [torch.tensor([shot[name] for shot in truth["shots"]]) for name in ("azimuth_deg", "elevation_deg")]
        return PhotoSet(name_photo_views(photos, ClipScorer.load(SELECTOR)), torch.stack(masks), *angles)

    def masked(self, found: bool, grow: int) -> SubjectPhotos:
        """The photos with the masks that were found, those of them that are trusted, or with the true ones."""
        photos = self.photos
        masks = torch.stack(photos.masks) if found else self.masks
        facts = photos.facts if found else photos.facts.assign(mask_trusted=True)
        return replace(photos, masks=tuple(grown(masks, grow)), facts=facts)


def grown(masks: Tensor, pixels: int) -> Tensor:
    """Masks (n, h, w) whose outlines lie some pixels farther outside, or inside where negative."""
    if pixels == 0:
        return masks
    sign = 1 if pixels > 0 else -1
    return sign * max_pool2d(sign * masks[:, None], 2 * abs(pixels) + 1, 1, abs(pixels))[:, 0]


def relative_errors(found_deg: Tensor, true_deg: Tensor) -> Tensor:
    """(n,) degrees by which azimuths (n,) are wrong after the common turn by which they are so the least."""
    return wrap_degrees(found_deg - true_deg - heading_error(found_deg, true_deg)).abs()


def heading_error(found_deg: Tensor, true_deg: Tensor) -> float:
    """Degrees of the common turn after which azimuths (n,) are wrong the least."""
    off = wrap_degrees(found_deg - true_deg)
    return off[wrap_degrees(off - off[:, None]).abs().sum(dim=1).argmin()].item()


@dataclass(frozen=True)
class Row:
    """What was measured of one photo set.

    Attributes:
        located: share of the photos.
        azimuth: errors of those, in degrees, relative to one another.
        elevation: median error in degrees; NaN where no photo is located, as `heading`.
        heading: error of the common turn in degrees.
        seconds: that it took.
    """

    located: float
    azimuth: list[float]
    elevation: float
    heading: float
    seconds: float


def measure(
    given: PhotoSet, found: bool = False, grow: int = 0, network: bool = True, device: torch.device = CPU
) -> Row:
    """One row of the table."""
    photos = given.masked(found, grow)
    started = time.perf_counter()
    prior = view_prior(photos, views_digest()) if network else None
    located = locate_photos(photos, prior, device)
    seconds = time.perf_counter() - started
    cameras = located.cameras
    known = ~cameras.azimuth_deg.isnan()
    if not known.any():
        return Row(0.0, [], float("nan"), float("nan"), seconds)
    azimuth = cameras.azimuth_deg[known], given.azimuth_deg[known]
    elevation = (cameras.elevation_deg - given.elevation_deg)[known].abs().median().item()
    errors = relative_errors(*azimuth).tolist()
    return Row(known.float().mean().item(), errors, elevation, abs(heading_error(*azimuth)), seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--found-masks", action="store_true")
    parser.add_argument("--grow", type=int, default=0)
    parser.add_argument("--no-network", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("subject             located  azimuth off (median, worst)  within 20  elevation off  heading off  seconds")
    rows = []
    for folder in sorted(path.parent for path in given.folder.glob("*/subject.json")):
        photos = PhotoSet.read(folder)
        rows.append(measure(photos, given.found_masks, given.grow, not given.no_network, pick_device(given.device)))
        print(_line(folder.name, [rows[-1]]), flush=True)
    if rows:
        print(_line("all", rows))


def _line(name: str, rows: list[Row]) -> str:
    azimuth = torch.tensor([value for row in rows for value in row.azimuth] or [float("nan")])
    located, elevation, seconds = (
        torch.tensor([getattr(row, name) for row in rows]).nanmean() for name in ("located", "elevation", "seconds")
    )
    heading = torch.tensor([row.heading for row in rows]).nanmedian()
    near = (azimuth <= NEAR_DEG).float().mean().item()
    return (
        f"{name:<20}{located:>6.0%}  {azimuth.median():>15.1f} {azimuth.max():>11.1f}  {near:>9.0%}  "
        f"{elevation:>13.1f}  {heading:>11.0f}  {seconds:>7.0f}"
    )


if __name__ == "__main__":
    main()
