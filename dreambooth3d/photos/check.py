"""The photo check: is this a set of photos from which a subject can be learned?

Errors stop with `PhotoSetError`; warnings travel with the artifact as findings. No photo is ever cropped. What needs
torch imports it where it does: that takes seconds, and most of what can be said of a set needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.errors import ConfigError, PhotoSetError, gist
from dreambooth3d.naming import printable
from dreambooth3d.photos.cameras.focal import focal_lengths
from dreambooth3d.photos.captions import read_caption
from dreambooth3d.photos.decoding import READABLE
from dreambooth3d.photos.held_out import held_out_files
from dreambooth3d.photos.masks.choose import choose_masks, mask_models, require_given
from dreambooth3d.photos.masks.source import HALF, Mask, SourcePhoto
from dreambooth3d.photos.quality import (
    ANALYSIS_SIDE_PX,
    HASH_BITS,
    Photo,
    exposure,
    hash_distance,
    pad_mask,
    pad_to_square,
    perceptual_hash,
    sharpness,
    shrink,
    subject_region,
)
from dreambooth3d.photos.reading import RawPhoto, read_photo
from dreambooth3d.photos.strangers import strangers
from dreambooth3d.photos.subject import (
    MASK_FOLDER,
    PHOTO_SUFFIXES,
    SubjectInfo,
    masks_in_other_formats,
    other_images,
    photo_files,
    resolve_folder,
    shown_path,
    stray_captions,
    stray_masks,
    subject_name,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dreambooth3d.artifacts import SubjectPhotos
    from dreambooth3d.runtime import Runtime

__all__ = ["PhotoReport", "SubjectInfo", "check_photos", "inspect_folder", "report_lines", "resolve_folder", "to_table"]

SHEET_SIDE_PX = 192
MAX_NAMED = 5
FACT_COLUMNS = (
    "file", "width", "height", "bytes", "sha256", "phash", "sharpness", "exposure",
    "subject_share", "subject_left", "subject_top", "subject_right", "subject_bottom", "findings",
)  # fmt: skip


MASK_COLUMNS = ("mask_source", "mask_confidence", "mask_trusted", "mask_cut")
OUTLINE = {True: (50, 205, 50), False: (255, 165, 0)}
"""Colour of a mask's outline on the contact sheet, by whether it is trusted."""
HELD_OUT_OUTLINE = (30, 110, 255)
"""The same of photos that are held out."""
PADDED = "not square: padded with the colour of their border, nothing was cropped."
"""End of the one finding that asks nothing of anybody."""


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


def check_photos(config: PhotosConfig, dataset_hash: str, models: PhotoModels, runtime: Runtime) -> SubjectPhotos:
    """Read, check, mask and describe the configured photo set.

    Args:
        config: which photos, and the limits of the check.
        dataset_hash: the set's identity, from `photos.dataset.dataset_hash`.
        models: the networks that may make masks, from `photos.models.photo_models`.
        runtime: receives params, metrics and the contact sheet `photos`.

    Returns:
        Photos of shape (3, side, side) in [0, 1], side at most 512 px, sorted by file name; never cropped. Those that
        are held out are apart.

    Raises:
        PhotoSetError: the set cannot be used.
        ConfigError: a network for masks is not here, or another than the one pinned; or as for `resolve_folder`.
        DatasetError: see `resolve_folder`.
    """
    folder, info = resolve_folder(config)
    report = with_captions(with_masks(inspect_folder(folder, config), config, models), config, info)
    photos = as_photos(report, folder, info, dataset_hash)
    _log(report, config, photos.subject, info, dataset_hash, runtime)
    return replace(photos, record=runtime.log.record())


def as_photos(report: PhotoReport, folder: Path, info: SubjectInfo, dataset_hash: str) -> SubjectPhotos:
    """The photos of a report with masks, as stages take them; those that are held out are apart."""
    import torch

    from dreambooth3d.artifacts import SubjectPhotos
    from dreambooth3d.images import from_pil

    photos = SubjectPhotos(
        images=tuple(from_pil(Image.fromarray(image)) for image in report.images),
        masks=tuple(torch.from_numpy(mask).float() / 255 for mask in report.masks),
        facts=report.facts.assign(focal_length_35mm=focal_lengths(folder)),
        findings=report.findings,
        subject=subject_name(folder),
        identifier=info.identifier,
        class_noun=info.class_noun,
        description=info.description,
        dataset_hash=dataset_hash,
    )
    return without_held_out(photos, report.held_out)


def without_held_out(photos: SubjectPhotos, files: Sequence[str]) -> SubjectPhotos:
    """The photos with those of the given names apart from the others, as `held_out`."""
    if not files:
        return photos

    def part(apart: bool) -> SubjectPhotos:
        rows = [index for index, file in enumerate(photos.facts["file"]) if (file in files) == apart]
        return replace(
            photos,
            images=tuple(photos.images[row] for row in rows),
            masks=tuple(photos.masks[row] for row in rows),
            facts=photos.facts.iloc[rows].reset_index(drop=True),
        )

    return replace(part(False), held_out=replace(part(True), findings=()))


def check_folder(folder: Path, config: PhotosConfig, info: SubjectInfo) -> PhotoReport:
    """All that can be said about the photos of a subject in a folder.

    Raises:
        PhotoSetError: see `inspect_folder`.
        ConfigError: a network for masks is asked for that is not here.
    """
    models = mask_models(config)
    return with_captions(with_masks(inspect_folder(folder, config), config, models), config, info)


def inspect_folder(folder: Path, config: PhotosConfig | None = None) -> PhotoReport:
    """Check the photos in a folder, whoever is in them (`config` gives the limits only).

    Raises:
        PhotoSetError: missing folder, no photos, too few, too many, too few distinct, one unreadable, empty or
            too small, a mask that does not fit its photo, or masks that are asked for and are not there.
    """
    config = config or PhotosConfig()
    files = _counted_files(folder, config)
    photos = [read_photo(path) for path in files]
    held_out = held_out_files(files, config)
    _refuse_unusable(photos, held_out, folder, config)
    rows = [_measure(photo) for photo in photos]
    findings = [_photo_findings(row, config) for row in rows]
    for index, sentence in _duplicate_findings(rows, config.duplicate_distance_bits):
        findings[index].append(sentence)
    facts = pd.DataFrame([row | {"findings": " ".join(texts)} for row, texts in zip(rows, findings, strict=True)])
    sentences = [f"{row['file']}: {text}" for row, texts in zip(rows, findings, strict=True) for text in texts]
    sources = tuple(_source_photo(*each) for each in zip(files, photos, strict=True))
    require_given(sources, config)
    images = tuple(pad_to_square(source.pixels) for source in sources)
    opaque = [photo.file for photo in photos if photo.opaque]
    said = (*sentences, *_set_findings(folder, rows), *_opaque_findings(opaque, len(photos)))
    return PhotoReport(images, facts[list(FACT_COLUMNS)], said, sources, held_out=held_out)


def _source_photo(path: Path, photo: RawPhoto) -> SourcePhoto:
    """A photo as sources of masks see it."""
    return SourcePhoto(path, photo.pixels, photo.alpha, photo.mask)


def with_masks(report: PhotoReport, config: PhotosConfig, models: PhotoModels) -> PhotoReport:
    """The report with a mask of each photo, where each comes from, and what is to be said about it.

    Raises:
        ConfigError: a network for masks is not here, or another than the one pinned.
    """
    chosen = choose_masks(report.sources, config, models)
    values = [(each.source, each.mask.confidence, each.mask.trusted, each.cut) for each in chosen]
    columns = dict(zip(MASK_COLUMNS, map(list, zip(*values, strict=True)), strict=True))
    facts = report.facts.assign(**columns)
    facts["findings"] = [
        " ".join([text, *(f"{said}" for said in each.findings)]).strip()
        for text, each in zip(facts["findings"], chosen, strict=True)
    ]
    said = [f"{file}: {text}" for file, each in zip(facts["file"], chosen, strict=True) for text in each.findings]
    brought = facts["mask_source"].isin(("files", "alpha"))
    if brought.any() and not brought.all():
        lacking = ", ".join(facts["file"][~brought])
        said.append(f"Masks are there for {brought.sum()} of {_photos(len(facts))}; the others' are found: {lacking}.")
    said += [
        f"{file}: is held out, but cannot be compared with the asset, since its mask is not trusted. Put a mask beside "
        "it as NAME_mask.png, or hold out another photo."
        for file in facts["file"][~facts["mask_trusted"].astype(bool)]
        if file in report.held_out
    ]
    if others := strangers([photo.pixels for photo in report.sources], [each.mask.mask for each in chosen]):
        names = ", ".join(facts["file"].iloc[others])
        said.append(
            f"By the colours inside their masks these may show another subject: {names}. A folder holds one subject: "
            "remove what does not belong, or put a mask beside it as NAME_mask.png if only its mask is wrong."
        )
    masks = tuple(pad_mask(each.mask.mask) for each in chosen)
    return replace(report, facts=facts, findings=(*report.findings, *said), masks=masks)


def with_captions(report: PhotoReport, config: PhotosConfig, info: SubjectInfo) -> PhotoReport:
    """The report with each photo's caption, empty where there is none or none that is used, which findings say."""
    captions, said = [], []
    for file, source in zip(report.facts["file"], report.sources, strict=True):
        caption, ignored = read_caption(source.path, config, info)
        captions.append(caption)
        said += [f"{file}: {ignored}"] if ignored else []
    stray = [printable(path.name) for path in stray_captions(report.sources[0].path.parent)]
    if stray and config.captions:
        said.append(f"Left out, since a caption ends in .txt and has its photo's name: {', '.join(stray)}.")
    return replace(report, facts=report.facts.assign(caption=captions), findings=(*report.findings, *said))


def _counted_files(folder: Path, config: PhotosConfig) -> list[Path]:
    """The photo files, when their number is acceptable."""
    shown = shown_path(folder)
    if not folder.is_dir():
        raise PhotoSetError(f"{shown}: there is no such folder. Check the path of the photos.")
    files = photo_files(folder)
    if not files:
        others = ", ".join(printable(path.name) for path in other_images(folder)[:MAX_NAMED])
        hint = f" Export as one of these what is there: {others}." if others else ""
        raise PhotoSetError(f"{shown}: there are no photos. Put {', '.join(PHOTO_SUFFIXES)} files there.{hint}")
    if masks := masks_in_other_formats(folder):
        raise PhotoSetError(
            f"{shown_path(masks[0])}: has the name of a mask, but masks are PNG files. Save it as "
            f"{printable(masks[0].stem)}.png and remove this one, or give it another name if it is a photo."
        )
    if len(files) < config.min_count:
        raise PhotoSetError(
            f"{shown}: {_photos(len(files))}, at least {config.min_count} are needed. "
            "Add photos from other sides, or lower photos.min_count in your config."
        )
    if len(files) > config.max_count:
        raise PhotoSetError(
            f"{shown}: {_photos(len(files))}, at most {config.max_count} are allowed. "
            "Keep the sharpest from different sides, or raise photos.max_count in your config."
        )
    return files


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"


def _refuse_unusable(photos: Sequence[RawPhoto], held_out: Sequence[str], folder: Path, config: PhotosConfig) -> None:
    """Raise for photos that are too small, and for copies that leave too few distinct photos."""
    for photo in photos:
        width, height = photo.width, photo.height
        if min(height, width) < config.min_side_px:
            raise PhotoSetError(
                f"{shown_path(folder)}/{photo.file}: {width} x {height} pixels, at least {config.min_side_px} "
                "on each side are needed. Use the original photo, or lower photos.min_side_px in your config."
            )
    learned = [photo for photo in photos if photo.file not in held_out]
    distinct = len({photo.sha256 for photo in learned})
    if distinct < config.min_count:
        beside = f" beside those that photos.hold_out names ({len(held_out)})" if held_out else ""
        raise PhotoSetError(
            f"{shown_path(folder)}: {len(learned)} files{beside}, but only {distinct} distinct "
            f"{'photo' if distinct == 1 else 'photos'} (the others are exact copies), "
            f"at least {config.min_count} are needed. Add photos from other sides."
        )


def _measure(photo: RawPhoto) -> PhotoFacts:
    """One row of facts, without findings."""
    pixels, small = photo.pixels, shrink(photo.pixels, ANALYSIS_SIDE_PX)
    region = subject_region(small)
    left, top, right, bottom = map(float, region.box)
    return {
        "file": photo.file,
        "width": photo.width,
        "height": photo.height,
        "bytes": photo.size_bytes,
        "sha256": photo.sha256,
        "phash": f"{perceptual_hash(pixels):016x}",
        "sharpness": sharpness(small),
        "exposure": exposure(pixels),
        "subject_share": region.share,
        "subject_left": left,
        "subject_top": top,
        "subject_right": right,
        "subject_bottom": bottom,
    }


def _photo_findings(row: PhotoFacts, config: PhotosConfig) -> list[str]:
    """Warnings about one photo, without its name."""
    findings = []
    darkest, brightest = config.exposure_range
    if row["sharpness"] < config.min_sharpness:
        findings.append(f"looks blurred (sharpness {row['sharpness']:.1e}, usual from {config.min_sharpness:.1e}).")
    if row["exposure"] < darkest:
        findings.append(f"is very dark (mean luminance {row['exposure']:.2f}, usual from {darkest:.2f}).")
    if row["exposure"] > brightest:
        findings.append(f"is very bright (mean luminance {row['exposure']:.2f}, usual up to {brightest:.2f}).")
    if row["subject_share"] < config.min_subject_share:
        share = f"{row['subject_share']:.1%} of the frame, usual from {config.min_subject_share:.0%}"
        findings.append(f"the subject is small or hard to tell from the background (about {share}).")
    return findings


def _duplicate_findings(rows: Sequence[PhotoFacts], max_bits: int) -> list[tuple[int, str]]:
    """Warnings about copies and near-copies, each at the later photo of the pair and naming the first such partner."""
    found: dict[int, str] = {}
    hashes = [int(row["phash"], 16) for row in rows]
    for first, second in combinations(range(len(rows)), 2):
        if second in found:
            continue
        partner = rows[first]["file"]
        bits = hash_distance(hashes[first], hashes[second])
        if rows[first]["sha256"] == rows[second]["sha256"]:
            found[second] = f"is an exact copy of {partner}, so that this view counts twice."
        elif bits <= max_bits:
            found[second] = f"is nearly the same photo as {partner} ({bits} of {HASH_BITS} hash bits differ)."
    return sorted(found.items())


def _set_findings(folder: Path, rows: Sequence[PhotoFacts]) -> list[str]:
    """Warnings about the set as a whole."""
    findings = []
    if padded := [row["file"] for row in rows if row["width"] != row["height"]]:
        share = f"{len(padded)} of {_photos(len(rows))}"
        findings.append(f"{share} {PADDED}")
    if stray := [printable(path.name) for path in stray_masks(folder)]:
        names = ", ".join(stray)
        findings.append(f"Left out of {MASK_FOLDER}/, since no photo has their name or they are no PNG: {names}.")
    if skipped := [printable(path.name) for path in other_images(folder)]:
        findings.append(f"Left out, since only {READABLE} is read: {', '.join(skipped)}. Export them as JPEG.")
    return findings


def _opaque_findings(files: Sequence[str], count: int) -> list[str]:
    """A warning about photos whose transparency tells no subject."""
    if not files:
        return []
    share = f"{len(files)} of {_photos(count)}"
    return [
        f"The transparency of {share} is opaque throughout, so that it tells no subject: {', '.join(files)}. "
        "Where you cut the subject out, export it again with transparency."
    ]


def _log(
    report: PhotoReport, config: PhotosConfig, subject: str, info: SubjectInfo, dataset_hash: str, runtime: Runtime
) -> None:
    """Report params, metrics and the contact sheet."""
    facts, limits = report.facts, ("min_count", "max_count", "min_side_px", "duplicate_distance_bits", "min_sharpness")
    identity = {"subject": subject, "class_noun": info.class_noun, "identifier": info.identifier}
    runtime.log.params(dataset_hash=dataset_hash, **identity, **{name: getattr(config, name) for name in limits})
    runtime.log.metrics(
        photos=len(facts),
        distinct_photos=facts["sha256"].nunique(),
        findings=len(report.findings),
        smallest_side_px=facts[["width", "height"]].min().min(),
        lowest_sharpness=facts["sharpness"].min(),
        mean_exposure=facts["exposure"].mean(),
        mean_subject_share=facts["subject_share"].mean(),
        smallest_subject_share=facts["subject_share"].min(),
        photos_usable_as_targets=report.usable_as_targets[0],
        photos_held_out=len(report.held_out),
        mean_mask_confidence=facts["mask_confidence"].mean(),
        lowest_mask_confidence=facts["mask_confidence"].min(),
    )
    runtime.log.params(masks=config.masks, mask_sources=", ".join(facts["mask_source"]))
    runtime.log.params(held_out=", ".join(map(printable, report.held_out)) or "none")
    runtime.log.image("photos", contact_sheet(report))


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
