"""How a report of the photo check is shown: as lines, as values, and as a picture with the masks' outlines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.naming import printable
from dreambooth3d.photos.masks.source import HALF, Mask
from dreambooth3d.photos.quality import Photo
from dreambooth3d.photos.report import PhotoReport

if TYPE_CHECKING:
    from torch import Tensor

    from dreambooth3d.artifacts import SubjectPhotos

SHEET_SIDE_PX = 192
OUTLINE = {True: (50, 205, 50), False: (255, 165, 0)}
"""Colour of a mask's outline on the contact sheet, by whether it is trusted."""
HELD_OUT_OUTLINE = (30, 110, 255)
"""The same of photos that are held out."""


def contact_sheet(report: PhotoReport, columns: int = 6) -> Tensor:
    """(3, height, width): all photos with their names and the masks' outlines.

    Green where they are trusted, orange where not, blue where they are trusted and the photo is held out.
    """
    import torch

    from dreambooth3d.images import captioned, sheet

    columns_of_facts = (report.facts["mask_trusted"], report.facts["file"].isin(report.held_out))
    cells = [_sheet_cell(*each) for each in zip(report.images, report.masks, *columns_of_facts, strict=True)]
    return sheet(captioned(torch.stack(cells), list(map(printable, report.facts["file"]))), min(columns, len(cells)))


def write_sheet(report: PhotoReport, path: Path) -> None:
    """Write the contact sheet as a picture.

    Raises:
        ConfigError: the picture cannot be written there.
    """
    from dreambooth3d.images import save_image

    try:
        save_image(contact_sheet(report), path)
    except (OSError, ValueError) as error:  # PIL's for a suffix that names no format
        raise ConfigError(f"{path}: the sheet cannot be written ({gist(error)}). Name a .png file.") from None


def _sheet_cell(image: Photo, mask: Mask, trusted: bool, held_out: bool) -> Tensor:
    """(3, side, side): one padded photo with its mask's outline."""
    from dreambooth3d.images import from_pil

    return from_pil(Image.fromarray(outlined(image, mask, (SHEET_SIDE_PX, SHEET_SIDE_PX), trusted, held_out)))


def outlined(image: Photo, mask: Mask, size: tuple[int, int], trusted: bool, held_out: bool) -> Photo:
    """A photo at another width and height with its mask's outline, in the colours of the contact sheet."""
    cell = np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    subject = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX)) >= HALF
    cell[binary_dilation(subject) & ~binary_erosion(subject)] = (
        HELD_OUT_OUTLINE if trusted and held_out else OUTLINE[bool(trusted)]
    )
    return cell


def to_table(facts: pd.DataFrame) -> str:
    """The facts as aligned text, one line per photo under a header."""
    masked = "mask_source" in facts
    lines = ["photo                size (px)     KiB  sharpness  exposure  subject  phash"]
    lines += [
        f"{row.file:<20.20} {f'{row.width}x{row.height}':<11} {row.bytes / 1024:>5.0f}  {row.sharpness:>9.2e}  "
        f"{row.exposure:>8.2f}  {row.subject_share:>7.0%}  {row.phash}"
        for row in facts.itertuples()
    ]
    if masked:
        lines[0] += "            mask"
        for number, row in enumerate(facts.itertuples(), start=1):
            trust = "" if row.mask_trusted else ", not trusted"
            lines[number] += f"  {row.mask_source} {row.mask_confidence:.2f}{trust}"
    return "\n".join(lines)


def report_lines(report: PhotoReport | SubjectPhotos) -> list[str]:
    """The report for a terminal: the table, how many photos can be targets, each finding, or that there is none."""
    findings = [f"warning: {text}" for text in report.findings] or ["No warnings."]
    facts, said = report.facts, []
    if "mask_source" in facts:
        learned = report.usable_as_targets if isinstance(report, PhotoReport) else (report.trusted.sum(), len(facts))
        said.append("usable as targets: {} of {}".format(*learned))
    if held_out := _held_out_names(report):
        said.append(f"held out: {', '.join(map(printable, held_out))}")
    return [*to_table(facts).splitlines(), "", *said, *findings]


def _held_out_names(report: PhotoReport | SubjectPhotos) -> list[str]:
    if isinstance(report, PhotoReport):
        return list(report.held_out)
    return [] if report.held_out is None else report.held_out.facts["file"].tolist()


def values(report: PhotoReport) -> dict[str, Any]:
    """The report for a program: what is known of each photo, and what the lines say; numbers are Python's own."""
    usable, learned = report.usable_as_targets
    return {
        "photos": report.facts.astype(object).to_dict("records"),
        "usable_as_targets": usable,
        "targets_at_most": learned,
        "held_out": list(report.held_out),
        "findings": list(report.findings),
    }
