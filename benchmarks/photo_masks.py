"""How good are the masks of photos? Mean overlap with the true ones of each set, and a sheet to look at.

Usage: python -m benchmarks.photo_masks FOLDER... [--masks learned] [--sheet masks.webp] [--threads 2]

A FOLDER holds photos, with true masks beside them (NAME_mask.png) or without; or photos/ with masks/NAME.png; or, at
any depth, folders that do. The check is given nothing but the photos. IoU is intersection over union of masks at one
half; `at worst trusted` is the smallest of the masks that would be targets. Of photos without true masks it says how
sure their masks are, and the sheet shows them: outlines green where trusted, else orange. The bundled network is that
in models/masks of the working directory, else of the repository.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.real.layout import LayoutError
from benchmarks.real.photos import alone, overlaps, true_mask
from dreambooth3d.config.photos import MaskSourceName, PhotosConfig
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.images import save_image
from dreambooth3d.photos.check import check_folder
from dreambooth3d.photos.report import PhotoReport
from dreambooth3d.photos.showing import contact_sheet
from dreambooth3d.photos.subject import SubjectInfo, mask_file, photo_files

SOURCES = ("auto", "learned", "rembg", "smooth_background")
GOOD = 0.85
COLUMNS = 8


@dataclass(frozen=True)
class MaskSet:
    """Photos of one subject, and their true masks; none of these where they are not known."""

    name: str
    photos: Sequence[Path]
    true: Sequence[Path]


@dataclass(frozen=True)
class Row:
    """What was found in the n photos of a set.

    Attributes:
        name: of the set, or of several.
        overlaps: n with the true masks; none where those are not known.
        trusted: n, whether a mask would be a target.
        confidence: n, in [0, 1].
    """

    name: str
    overlaps: Sequence[float]
    trusted: Sequence[bool]
    confidence: Sequence[float]

    def line(self) -> str:
        """For the table that `HEADER` begins."""
        photos = len(self.trusted)
        told = f"{self.name:<24.24} {photos:>6}  {f'{sum(self.trusted)} of {photos}':>10}"
        if not self.overlaps:
            return f"{told}  no true masks; confidence {' '.join(f'{value:.2f}' for value in self.confidence)}"
        good = f"{sum(value > GOOD for value in self.overlaps)} of {photos}"
        trusted = [value for value, sure in zip(self.overlaps, self.trusted, strict=True) if sure]
        worst = f"{min(trusted):>16.2f}" if trusted else f"{'-':>16}"
        mean = sum(self.overlaps) / photos
        return f"{told}  {mean:>8.3f}  {good:>10}  {min(self.overlaps):>8.2f}  {worst}"

    @staticmethod
    def all_of(name: str, rows: Sequence[Row]) -> Row:
        """The photos of several sets."""
        columns = ("overlaps", "trusted", "confidence")
        return Row(name, *([value for row in rows for value in getattr(row, column)] for column in columns))


HEADER = (
    f"{'photos':<24} {'number':>6}  {'trusted':>10}  {'mean IoU':>8}  {f'above {GOOD}':>10}  {'at worst':>8}  "
    f"{'at worst trusted':>16}"
)


def mask_sets(folder: Path, name: str = "") -> list[MaskSet]:
    """The photo sets in a folder, by name.

    Raises:
        LayoutError: there is no such folder, none is in it, or only some of a set's photos have a true mask.
    """
    if not folder.is_dir():
        raise LayoutError(f"{folder}: there is no such folder. Give one with photos, or with folders of photos.")
    found = _sets_in(folder, name or folder.resolve().name)
    if not found:
        raise LayoutError(f"{folder}: holds no photos. Give a folder with photos, or with folders of photos.")
    return found


def _sets_in(folder: Path, name: str) -> list[MaskSet]:
    rendered = (folder / "photos").is_dir()
    photos = photo_files(folder / "photos" if rendered else folder)
    if photos:
        beside = [folder / "masks" / f"{photo.stem}.png" if rendered else mask_file(photo) for photo in photos]
        masks = [mask for mask in beside if mask is not None and mask.is_file()]
        if masks and len(masks) < len(photos):
            raise LayoutError(f"{folder}: {len(masks)} true masks for {len(photos)} photos. Give all of them, or none.")
        return [MaskSet(name, photos, masks)]
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return [each for path in inside for each in _sets_in(path, path.name)]


def measure(photos: MaskSet, masks: MaskSourceName) -> tuple[Row, PhotoReport]:
    """The masks that the check finds of a set, which sees no mask."""
    with TemporaryDirectory() as work:
        folder = alone(photos.photos, Path(work) / "photos")
        config = PhotosConfig(dir=str(folder), class_noun="object", masks=masks, max_count=max(64, len(photos.photos)))
        report = check_folder(folder, config, SubjectInfo(class_noun="object"))
    found = [torch.from_numpy(mask).float() / 255 for mask in report.masks]
    overlap = overlaps(found, [true_mask(path) for path in photos.true]) if photos.true else []
    facts = report.facts
    return Row(photos.name, overlap, facts["mask_trusted"].tolist(), facts["mask_confidence"].tolist()), report


def stacked(sheets: Sequence[Tensor]) -> Tensor:
    """(3, height, width) sheets (3, h, w) below each other, on white."""
    wide = max(each.shape[-1] for each in sheets)
    padded = [torch.nn.functional.pad(each, (0, wide - each.shape[-1]), value=1.0) for each in sheets]
    return torch.cat(padded, dim=1)


def run(arguments: argparse.Namespace) -> None:
    """Measure all folders, print a line for each set and one for each folder of several, write the sheet.

    Raises:
        DreamBooth3DError: a folder cannot be used.
    """
    groups = [mask_sets(folder) for folder in arguments.folders]
    sheets: list[Tensor] = []
    print(HEADER)
    for folder, group in zip(arguments.folders, groups, strict=True):
        rows: list[Row] = []
        for photos in group:
            row, report = measure(photos, arguments.masks)
            print(row.line(), flush=True)
            sheets.append(contact_sheet(report, COLUMNS))
            rows.append(row)
        known = [row for row in rows if row.overlaps]
        if len(known) > 1:
            print(Row.all_of(f"all of {folder.resolve().name}", known).line(), flush=True)
    if arguments.sheet is not None:
        save_image(stacked(sheets), arguments.sheet)
        print(arguments.sheet)


def main() -> int:
    """Command line entry; exit code 1 if a folder cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photo_masks", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of photos, or of folders of photos")
    parser.add_argument("--masks", default="learned", choices=SOURCES, help="as photos.masks of a configuration")
    parser.add_argument("--sheet", type=Path, help="write a picture of the photos with their masks' outlines")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        run(arguments)
    except DreamBooth3DError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
