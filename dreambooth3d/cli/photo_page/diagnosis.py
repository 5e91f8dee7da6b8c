"""What is to be said of a photo set: the product's own findings and measures, for somebody who took the photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.photos.backgrounds import SAME, background_sameness
from dreambooth3d.photos.cameras.locate import NO_MASK, REASON
from dreambooth3d.photos.cameras.search import MIN_PHOTOS
from dreambooth3d.photos.colour_cast import colour_casts, tint
from dreambooth3d.photos.coverage import NextPhoto, next_photos, place_name, seen_share
from dreambooth3d.photos.findings import PADDED
from dreambooth3d.photos.masks.source import SOURCES, Mask
from dreambooth3d.photos.quality import Photo, frame_in_square
from dreambooth3d.photos.report import PhotoReport
from dreambooth3d.photos.strangers import strangers

Weight = Literal["good", "note", "warning"]
NO_TARGET = f"is no target, since {NO_MASK}."


@dataclass(frozen=True)
class Said:
    """One sentence, and how much it matters."""

    weight: Weight
    text: str


@dataclass(frozen=True)
class PhotoCard:
    """What is said of one photo.

    Attributes:
        file: its name.
        image, mask: uint8 (height, width, 3) and (height, width), not padded.
        source, confidence: of the mask, in the words of `SOURCES`; an empty source where there is none.
        trusted: whether the photo can be a target.
        held_out: whether nothing learns from it.
        azimuth_deg: of its camera, NaN where it is unknown.
        said: one sentence per finding.
    """

    file: str
    image: Photo
    mask: Mask
    source: str
    confidence: float
    trusted: bool
    held_out: bool
    azimuth_deg: float
    said: tuple[Said, ...]

    @property
    def warned(self) -> bool:
        """Whether there is something to do about it."""
        return any(each.weight == "warning" for each in self.said)


@dataclass(frozen=True)
class Diagnosis:
    """What is said of a set.

    Attributes:
        usable: of how many photos the masks are trusted, and of how many.
        cards: one per photo, by name.
        seen: share of all directions around the subject that photos show.
        next: where to photograph next.
        said: of the set as a whole.
    """

    subject: str
    class_noun: str
    usable: tuple[int, int]
    cards: tuple[PhotoCard, ...]
    seen: float
    next: tuple[NextPhoto, ...]
    said: tuple[Said, ...]

    @property
    def located(self) -> int:
        """How many photos' cameras are known."""
        return sum(not math.isnan(card.azimuth_deg) for card in self.cards)

    @property
    def verdict(self) -> Said:
        """All of it in one sentence."""
        warnings = [said for said in self.said if said.weight == "warning"]
        if self.located < MIN_PHOTOS:
            return Said("warning", "These photos do not tell the subject's shape yet: see what to do next.")
        if warnings or self.next or any(card.warned for card in self.cards):
            return Said("note", "These photos can be used, and would be better with what is below.")
        return Said("good", "These photos are ready.")

    def next_place(self, wanted: NextPhoto) -> str:
        """Where a further photo is to be taken from, in one sentence."""
        names = [self.cards[index].file for index in wanted.neighbours if index is not None]
        between = f": about midway between {names[0]} and {names[1]}" if len(set(names)) == 2 else ""
        return f"Photograph it from {place_name(wanted.azimuth_deg)}{between}."


def diagnose(report: PhotoReport, photos: SubjectPhotos) -> Diagnosis:
    """Sort what the check and the search for cameras have found.

    Args:
        report: of the check, with masks.
        photos: the same photos with cameras in their facts.
    """
    images = [source.pixels for source in report.sources]
    masks = [mask[frame_in_square(*image.shape[:2])] for image, mask in zip(images, report.masks, strict=True)]
    trusted = report.facts["mask_trusted"].astype(bool).tolist()
    # A mask that is not trusted says nothing of colours.
    sure = [mask if good else np.zeros_like(mask) for mask, good in zip(masks, trusted, strict=True)]
    casts, others = colour_casts(images, sure), strangers(images, masks)
    files = report.facts["file"].tolist()
    cameras = {row["file"]: row for row in photos.facts.to_dict("records")}
    found = _by_photo(photos.findings, files)
    cards = []
    for index, facts in enumerate(report.facts.to_dict("records")):
        seen = cameras.get(facts["file"], {})
        measured = [
            *_about_colours(tint(casts[index]), index in others),
            *_about_place(seen),
        ]
        said = [*(Said("warning", _readable(text)) for text in found[index]), *measured]
        if not any(each.weight == "warning" for each in said):
            said.insert(0, Said("good", "Sharp, well lit, no copy of another."))
        cards.append(
            PhotoCard(
                facts["file"], images[index], masks[index], SOURCES.get(facts["mask_source"], ""),
                float(facts["mask_confidence"]), trusted[index], facts["file"] in report.held_out,
                float(seen.get("azimuth_deg", math.nan)), tuple(said),
            )
        )  # fmt: skip
    azimuths = [card.azimuth_deg for card in cards]
    return Diagnosis(
        photos.subject, photos.class_noun, report.usable_as_targets, tuple(cards), seen_share(azimuths),
        tuple(next_photos(azimuths)), (*_about_set(photos.findings, files), *_about_backgrounds(photos, images, sure)),
    )  # fmt: skip


def _file_of(finding: str, files: Sequence[str]) -> str | None:
    """The photo that a finding is about, by the name that it starts with."""
    return max((file for file in files if finding.startswith(f"{file}: ")), key=len, default=None)


def _by_photo(findings: Sequence[str], files: Sequence[str]) -> list[list[str]]:
    """The findings about each photo, without its name; what the mask's finding says already is left out."""
    found: dict[str, list[str]] = {file: [] for file in files}
    for finding in findings:
        file = _file_of(finding, files)
        if file is not None and (text := finding.removeprefix(f"{file}: ")) != NO_TARGET:
            found[file].append(text)
    return [found[file] for file in files]


def _about_set(findings: Sequence[str], files: Sequence[str]) -> list[Said]:
    return [
        Said("note" if finding.endswith(PADDED) else "warning", finding)
        for finding in findings
        if _file_of(finding, files) is None
    ]


def _readable(text: str) -> str:
    """A finding as a sentence by itself."""
    return text[:1].upper() + text[1:]


def _about_colours(tinted: str | None, stranger: bool) -> list[Said]:
    said = []
    if tinted is not None:
        # On photographs it may be a wrong part of the mask as well, so it asks nobody to take a photo again.
        said.append(
            Said("note", f"What its mask shows is {tinted} than in the other photos: other light, or a mask that holds "
                 "more than the subject. A run evens out brightness, not colour: keep to one light, without filters.")
        )  # fmt: skip
    if stranger:
        said.append(Said("warning", "By the colours inside its mask this may be another thing than the others show."))
    return said


def _about_place(facts: dict[str, Any]) -> list[Said]:
    """From where it was taken, of a photo that cameras were searched for."""
    if REASON not in facts:
        return []
    if facts[REASON]:
        return [Said("note", f"From where it was taken could not be told; it looks like a {facts['view']} view.")]
    azimuth, elevation = facts["azimuth_deg"], facts["elevation_deg"]
    height = f"{abs(elevation):.0f}° {'above' if elevation >= 0 else 'below'} its middle"
    return [Said("good", f"Taken from {place_name(azimuth)} ({_signed(azimuth)}°), {height}.")]


def _signed(angle_deg: float) -> str:
    return f"{angle_deg:+.0f}".replace("-", "−")


def _about_backgrounds(photos: SubjectPhotos, images: Sequence[Photo], masks: Sequence[Mask]) -> list[Said]:
    """Whether what lies behind the subject may be learned as a part of it."""
    likeness = background_sameness(*_shown(images, masks))
    if likeness is None:
        return [Said("note", "Without masks it cannot be told whether the backgrounds are the same.")]
    if likeness < SAME:
        return [Said("good", "The backgrounds differ, so that none is learned as a part of the subject.")]
    same = f"All photos have the same background (their colours overlap by {likeness:.0%} or more)"
    # As in fine-tuning where `background_augmentation` is left open.
    if bool((photos.trusted & ~photos.before_smooth_background).all()):
        return [Said("note", f"{same}: fine-tuning puts the subject before others, since the masks tell it apart.")]
    return [
        Said("warning", f"{same}, which may be learned as a part of the subject: take some in other places, or set "
             "finetune_dreambooth.background_augmentation=true.")
    ]  # fmt: skip


def _shown(images: Sequence[Photo], masks: Sequence[Mask]) -> tuple[list[Photo], list[Mask]]:
    """The photos whose masks show something."""
    known = [index for index, mask in enumerate(masks) if mask.any()]
    return [images[index] for index in known], [masks[index] for index in known]
