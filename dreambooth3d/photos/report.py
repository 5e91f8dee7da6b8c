"""What the photo check says of a set: one row per photo, sentences, masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import pandas as pd

from dreambooth3d.photos.masks.source import Mask, SourcePhoto
from dreambooth3d.photos.quality import Photo

FACT_COLUMNS = (
    "file", "width", "height", "bytes", "sha256", "phash", "sharpness", "exposure",
    "subject_share", "subject_left", "subject_top", "subject_right", "subject_bottom", "findings",
)  # fmt: skip
MASK_COLUMNS = ("mask_source", "mask_confidence", "mask_trusted", "mask_cut")


class PhotoFacts(TypedDict):
    """One row of `PhotoReport.facts`, without findings."""

    file: str
    width: int
    height: int
    bytes: int
    sha256: str
    phash: str
    sharpness: float
    exposure: float
    subject_share: float
    subject_left: float
    subject_top: float
    subject_right: float
    subject_bottom: float


@dataclass(frozen=True)
class PhotoReport:
    """What the check saw.

    Attributes:
        images: uint8 (side, side, 3) each, side at most 512, upright, padded to square.
        facts: one row per photo, in the order of `images`: file, width and height (px, upright), bytes, sha256, phash
            (16 hex digits), sharpness (variance of the Laplacian at 128 px), exposure (mean luminance in [0, 1]),
            subject_share and subject_left/top/right/bottom (estimated, shares of the unpadded frame), findings (text).
            Once masks have been chosen, also mask_source, mask_confidence, mask_trusted and mask_cut.
        findings: warnings, one sentence each.
        sources: the photos as sources of masks see them.
        masks: uint8 (side, side) each, 0 in the padding; empty until they have been chosen.
        held_out: files of the photos that nothing will learn from.
    """

    images: tuple[Photo, ...]
    facts: pd.DataFrame
    findings: tuple[str, ...]
    sources: tuple[SourcePhoto, ...] = ()
    masks: tuple[Mask, ...] = ()
    held_out: tuple[str, ...] = ()

    @property
    def usable_as_targets(self) -> tuple[int, int]:
        """Of how many photos that are not held out the masks are trusted, and how many there are."""
        learned = self.facts[~self.facts["file"].isin(self.held_out)]
        return int(learned["mask_trusted"].sum()), len(learned)
