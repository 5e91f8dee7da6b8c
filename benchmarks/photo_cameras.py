"""How well are the cameras of casual photos found? Photo sets with known cameras, one folder each.

Usage: python -m benchmarks.photo_cameras FOLDER [--grow PIXELS] [--threads 2]

FOLDER/<subject>/photos/*, masks/*.png of the same names, and subject.json with `shots`: azimuth_deg, elevation_deg and
roll_deg of each photo. Cameras are told but for a turn about the subject, so azimuths are compared after the best
common turn. `--grow` moves the masks' outlines outwards, or inwards where negative.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.images import from_pil
from dreambooth3d.photos.cameras.locate import locate
from dreambooth3d.photos.cameras.search import USUAL_FOV_Y_DEG

NEAR_DEG = 20.0


@dataclass(frozen=True)
class PhotoSet:
    """n photos with masks and true cameras.

    Attributes:
        images: (n, 3, size, size) in [0, 1].
        masks: (n, size, size) in [0, 1].
        azimuth_deg, elevation_deg: (n,) true ones.
    """

    images: Tensor
    masks: Tensor
    azimuth_deg: Tensor
    elevation_deg: Tensor

    @staticmethod
    def read(folder: Path) -> PhotoSet:
        """The set in a folder."""
        photos = sorted((folder / "photos").iterdir())
        images = torch.stack([from_pil(Image.open(path).convert("RGB")) for path in photos])
        names = [folder / "masks" / f"{path.stem}.png" for path in photos]
        masks = [torch.from_numpy(np.asarray(Image.open(name).convert("L")).astype(np.float32) / 255) for name in names]
        shots = json.loads((folder / "subject.json").read_text())["shots"]
        angles = [torch.tensor([shot[name] for shot in shots]) for name in ("azimuth_deg", "elevation_deg")]
        return PhotoSet(images, torch.stack(masks), *angles)


def grown(masks: Tensor, pixels: int) -> Tensor:
    """Masks (n, h, w) whose outlines lie some pixels farther outside, or inside where negative."""
    if pixels == 0:
        return masks
    sign = 1 if pixels > 0 else -1
    return sign * max_pool2d(sign * masks[:, None], 2 * abs(pixels) + 1, 1, abs(pixels))[:, 0]


def common_turn(found_deg: Tensor, true_deg: Tensor) -> float:
    """Degrees in [-180, 180) by which azimuths (n,) are turned together: without that they are wrong the least."""
    off = wrap_degrees(found_deg - true_deg)
    turned = wrap_degrees(off - off[:, None])
    return off[turned.abs().sum(dim=1).argmin()].item()


def relative_errors(found_deg: Tensor, true_deg: Tensor) -> Tensor:
    """(n,) degrees by which azimuths (n,) are wrong after the common turn by which they are so the least."""
    return wrap_degrees(found_deg - true_deg - common_turn(found_deg, true_deg)).abs()


def measure(photos: PhotoSet, grow: int = 0) -> dict[str, float | list[float]]:
    """One row of the table, with the errors in azimuth of the photos that were located."""
    started = time.perf_counter()
    count = len(photos.images)
    fov = torch.full((count,), USUAL_FOV_Y_DEG)
    located = locate(photos.images, grown(photos.masks, grow), torch.ones(count, dtype=torch.bool), fov)
    seconds = time.perf_counter() - started
    cameras = located.placed.cameras
    known = ~cameras.azimuth_deg.isnan()
    if not known.any():
        return {"located": 0.0, "azimuth": [], "elevation": float("nan"), "seconds": seconds}
    azimuth = relative_errors(cameras.azimuth_deg[known], photos.azimuth_deg[known])
    elevation = (cameras.elevation_deg - photos.elevation_deg)[known].abs().median().item()
    return {
        "located": known.float().mean().item(),
        "azimuth": azimuth.tolist(),
        "elevation": elevation,
        "seconds": seconds,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grow", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("subject             located  azimuth off (median, worst)  within 20  elevation off  seconds", flush=True)
    rows = []
    for folder in sorted(path.parent for path in given.folder.glob("*/subject.json")):
        rows.append(measure(PhotoSet.read(folder), given.grow))
        print(_line(folder.name, [rows[-1]]), flush=True)
    if rows:
        print(_line("all", rows))


def _line(name: str, rows: list[dict]) -> str:
    azimuth = torch.tensor([value for row in rows for value in row["azimuth"]] or [float("nan")])
    located, elevation, seconds = (
        torch.tensor([row[key] for row in rows]).nanmean().item() for key in ("located", "elevation", "seconds")
    )
    near = (azimuth <= NEAR_DEG).float().mean().item()
    return (
        f"{name:<20}{located:>6.0%}  {azimuth.median():>15.1f} {azimuth.max():>11.1f}  {near:>9.0%}  "
        f"{elevation:>13.1f}  {seconds:>7.0f}"
    )


if __name__ == "__main__":
    main()
