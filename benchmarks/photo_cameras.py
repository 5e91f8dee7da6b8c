"""How well are the cameras of casual photos found? Photo sets with known cameras, one folder each.

Usage: python -m benchmarks.photo_cameras FOLDER [--found-masks] [--grow PIXELS] [--no-network] [--threads 2]
    [--device auto]

FOLDER/<subject>/ has photos, masks and subject.json as docs/benchmarks.md says of real subjects. The photos go through
what `validate_photos` does. Photos do not tell a turn of all cameras about the subject, so azimuths are compared after
the best common one, and that turn is the heading's error, where the front is azimuth 0. Elevations are wrong together
(`common`, above zero where they are too high) and each for itself (`rest`). How well the cameras fit one another is
`turned off`: by how much each is turned wrongly once all of them are turned alike, about any axis, so that they are so
the least; `tilt` is how far their up then is from up. `--found-masks` takes the masks that the photo check finds, not
the true ones, `--grow` moves their outlines outwards, or inwards where negative; `--no-network` does without the
network that tells views.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import max_pool2d

from benchmarks.real import layout
from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.photos.cameras.locate import CPU, locate_photos
from dreambooth3d.photos.cameras.placement import PlacedCameras, placed_cameras
from dreambooth3d.photos.cameras.prior import view_prior, views_digest
from dreambooth3d.photos.check import check_photos
from dreambooth3d.photos.masks.choose import mask_models
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime, pick_device

NEAR_DEG = 20.0
SELECTOR = "models/selector"
HEAD = (
    f"{'':<28}azimuth off{'':<15}elevation off{'':<13}turned off\n"
    f"{'subject':<19}located  median  worst  within 20    median  common  rest   median  worst  tilt  heading  seconds"
)


@dataclass(frozen=True)
class PhotoSet:
    """n photos with true cameras.

    Attributes:
        photos: as the photo check hands them on, views named.
        masks: (n, size, size) true ones, in [0, 1].
        cameras: true ones.
    """

    photos: SubjectPhotos
    masks: Tensor
    cameras: PlacedCameras

    @staticmethod
    def read(folder: Path) -> PhotoSet:
        """The set in a folder."""
        truth = layout.PhotoSet(folder, "", folder.name)
        config = PhotosConfig(dir=str(folder / "photos"), class_noun=truth.about["class_noun"])
        with tempfile.TemporaryDirectory() as work:
            runtime = Runtime(StepLog("validate_photos"), Path(work), progress=False)
            photos = check_photos(config, "untracked:0", mask_models(config), runtime)
        masks = [layout.read_grey(path) for path in truth.masks]
        return PhotoSet(name_photo_views(photos, ClipScorer.load(SELECTOR)), torch.stack(masks), truth.cameras)

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


def turned_errors(found: PlacedCameras, true: PlacedCameras) -> tuple[list[float], float]:
    """By how many degrees each camera is turned wrongly after the common turn by which all are so the least.

    And by how many degrees that turn tilts the world.
    """
    own, right = (
        Rotation.from_matrix((placed.cameras.camera_to_world[:, :3, :3] @ placed.to_upright).double().numpy())
        for placed in (found, true)
    )
    common = (right * own.inv()).mean()
    up = common.as_matrix()[2, 2]
    errors = np.rad2deg((right * (common * own).inv()).magnitude())
    return errors.tolist(), math.degrees(math.acos(min(up, 1.0)))


@dataclass(frozen=True)
class Row:
    """What was measured of one photo set, in degrees.

    Attributes:
        located: share of the photos.
        azimuth: errors of those, relative to one another.
        elevation: their signed errors.
        turned: by how much each is turned wrongly, relative to one another.
        tilt: of all of them together; NaN where no photo is located, as `heading`.
        heading: error of the common turn.
        seconds: that it took.
    """

    located: float
    azimuth: list[float]
    elevation: list[float]
    turned: list[float]
    tilt: float
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
    return compared(placed_cameras(located), given.cameras, seconds)


def compared(placed: PlacedCameras | None, true: PlacedCameras, seconds: float) -> Row:
    """What found cameras, NaN where a photo is not located, are against the true ones."""
    known = torch.zeros(0) if placed is None else (~placed.cameras.azimuth_deg.isnan()).nonzero()[:, 0]
    if placed is None or not len(known):
        return Row(0.0, [], [], [], math.nan, math.nan, seconds)
    found, right = placed[known], true[known]
    azimuth = found.cameras.azimuth_deg, right.cameras.azimuth_deg
    elevation = (found.cameras.elevation_deg - right.cameras.elevation_deg).tolist()
    share = len(known) / len(true.roll_deg)
    heading = abs(heading_error(*azimuth))
    return Row(share, relative_errors(*azimuth).tolist(), elevation, *turned_errors(found, right), heading, seconds)


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
    print(HEAD)
    rows = []
    for folder in sorted(path.parent for path in given.folder.glob("*/subject.json")):
        photos = PhotoSet.read(folder)
        rows.append(measure(photos, given.found_masks, given.grow, not given.no_network, pick_device(given.device)))
        print(_line(folder.name, [rows[-1]]), flush=True)
    if rows:
        print(_line("all", rows))


def _line(name: str, rows: list[Row]) -> str:
    azimuth = torch.tensor([value for row in rows for value in row.azimuth] or [math.nan])
    turned = torch.tensor([value for row in rows for value in row.turned] or [math.nan])
    elevation = torch.tensor([value for row in rows for value in row.elevation] or [math.nan]).abs().median()
    apart = [torch.tensor(row.elevation) for row in rows if row.elevation] or [torch.tensor([math.nan])]
    common = torch.stack([values.mean() for values in apart])
    rest = torch.stack([(values - values.mean()).square().mean().sqrt() for values in apart])
    located, tilt, seconds = (
        torch.tensor([getattr(row, name) for row in rows]).nanmean() for name in ("located", "tilt", "seconds")
    )
    heading = torch.tensor([row.heading for row in rows]).nanmedian()
    shown = common if len(rows) == 1 else common.square().mean().sqrt()
    near = (azimuth <= NEAR_DEG).float().mean().item()
    return (
        f"{name:<20}{located:>6.0%}  {azimuth.median():>7.1f} {azimuth.max():>6.1f}  {near:>9.0%}  "
        f"{elevation:>8.1f} {shown.item():>7.1f} {rest.mean():>5.1f}  {turned.median():>7.1f} {turned.max():>6.1f}  "
        f"{tilt:>4.1f}  {heading:>7.0f}  {seconds:>7.0f}"
    )


if __name__ == "__main__":
    main()
