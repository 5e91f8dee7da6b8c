"""The photo check: is this a set of photos from which a subject can be learned?

Errors stop with `PhotoSetError`; warnings travel with the artifact as findings. No photo is ever cropped. What needs
torch imports it where it does: that takes seconds, and most of what can be said of a set needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.naming import printable
from dreambooth3d.photos.cameras.focal import focal_lengths
from dreambooth3d.photos.captions import read_caption
from dreambooth3d.photos.findings import counted, duplicate_findings, opaque_findings, photo_findings, set_findings
from dreambooth3d.photos.held_out import held_out_files
from dreambooth3d.photos.limits import counted_files, refuse_unusable
from dreambooth3d.photos.masks.choose import choose_masks, mask_models, require_given
from dreambooth3d.photos.masks.kept import KeptMasks
from dreambooth3d.photos.masks.source import SourcePhoto
from dreambooth3d.photos.quality import (
    ANALYSIS_SIDE_PX,
    exposure,
    pad_mask,
    pad_to_square,
    perceptual_hash,
    sharpness,
    shrink,
    subject_region,
)
from dreambooth3d.photos.reading import RawPhoto, read_photo
from dreambooth3d.photos.report import FACT_COLUMNS, MASK_COLUMNS, PhotoFacts, PhotoReport
from dreambooth3d.photos.showing import contact_sheet
from dreambooth3d.photos.strangers import strangers
from dreambooth3d.photos.subject import (
    SubjectInfo,
    resolve_folder,
    stray_captions,
    subject_name,
)

if TYPE_CHECKING:
    from dreambooth3d.artifacts import SubjectPhotos
    from dreambooth3d.runtime import Runtime


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


def check_folder(folder: Path, config: PhotosConfig, info: SubjectInfo, kept: KeptMasks | None = None) -> PhotoReport:
    """All that can be said about the photos of a subject in a folder; `kept` as for `choose_masks`.

    Raises:
        PhotoSetError: see `inspect_folder`.
        ConfigError: a network for masks is asked for that is not here.
    """
    models = mask_models(config)
    return with_captions(with_masks(inspect_folder(folder, config), config, models, kept), config, info)


def inspect_folder(folder: Path, config: PhotosConfig | None = None) -> PhotoReport:
    """Check the photos in a folder, whoever is in them (`config` gives the limits only).

    Raises:
        PhotoSetError: missing folder, no photos, too few, too many, too few distinct, one unreadable, empty or
            too small, a mask that does not fit its photo, or masks that are asked for and are not there.
    """
    config = config or PhotosConfig()
    files = counted_files(folder, config)
    photos = [read_photo(path) for path in files]
    held_out = held_out_files(files, config)
    refuse_unusable(photos, held_out, folder, config)
    rows = [_measure(photo) for photo in photos]
    findings = [photo_findings(row, config) for row in rows]
    for index, sentence in duplicate_findings(rows, config.duplicate_distance_bits):
        findings[index].append(sentence)
    facts = pd.DataFrame([row | {"findings": " ".join(texts)} for row, texts in zip(rows, findings, strict=True)])
    sentences = [f"{row['file']}: {text}" for row, texts in zip(rows, findings, strict=True) for text in texts]
    sources = tuple(_source_photo(*each) for each in zip(files, photos, strict=True))
    require_given(sources, config)
    images = tuple(pad_to_square(source.pixels) for source in sources)
    opaque = [photo.file for photo in photos if photo.opaque]
    said = (*sentences, *set_findings(folder, rows), *opaque_findings(opaque, len(photos)))
    return PhotoReport(images, facts[list(FACT_COLUMNS)], said, sources, held_out=held_out)


def _source_photo(path: Path, photo: RawPhoto) -> SourcePhoto:
    """A photo as sources of masks see it."""
    return SourcePhoto(path, photo.pixels, photo.alpha, photo.mask)


def with_masks(
    report: PhotoReport, config: PhotosConfig, models: PhotoModels, kept: KeptMasks | None = None
) -> PhotoReport:
    """The report with a mask of each photo, where each comes from, and what is to be said about it.

    `kept` is as for `choose_masks`.

    Raises:
        ConfigError: a network for masks is not here, or another than the one pinned.
    """
    chosen = choose_masks(report.sources, config, models, kept)
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
        said.append(f"Masks are there for {brought.sum()} of {counted(len(facts))}; the others' are found: {lacking}.")
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
