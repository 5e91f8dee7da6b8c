"""What is to be said about photos and sets before their masks are known, one sentence each; nothing of it stops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.naming import printable
from dreambooth3d.photos.decoding import READABLE
from dreambooth3d.photos.quality import HASH_BITS, hash_distance
from dreambooth3d.photos.report import PhotoFacts
from dreambooth3d.photos.subject import MASK_FOLDER, other_images, stray_masks

PADDED = "not square: padded with the colour of their border, nothing was cropped."
"""End of the one finding that asks nothing of anybody."""


def counted(count: int) -> str:
    """So many photos, in words."""
    return "1 photo" if count == 1 else f"{count} photos"


def photo_findings(row: PhotoFacts, config: PhotosConfig) -> list[str]:
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


def duplicate_findings(rows: Sequence[PhotoFacts], max_bits: int) -> list[tuple[int, str]]:
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


def set_findings(folder: Path, rows: Sequence[PhotoFacts]) -> list[str]:
    """Warnings about the set as a whole."""
    findings = []
    if padded := [row["file"] for row in rows if row["width"] != row["height"]]:
        share = f"{len(padded)} of {counted(len(rows))}"
        findings.append(f"{share} {PADDED}")
    if stray := [printable(path.name) for path in stray_masks(folder)]:
        names = ", ".join(stray)
        findings.append(f"Left out of {MASK_FOLDER}/, since no photo has their name or they are no PNG: {names}.")
    if skipped := [printable(path.name) for path in other_images(folder)]:
        findings.append(f"Left out, since only {READABLE} is read: {', '.join(skipped)}. Export them as JPEG.")
    return findings


def opaque_findings(files: Sequence[str], count: int) -> list[str]:
    """A warning about photos whose transparency tells no subject."""
    if not files:
        return []
    share = f"{len(files)} of {counted(count)}"
    return [
        f"The transparency of {share} is opaque throughout, so that it tells no subject: {', '.join(files)}. "
        "Where you cut the subject out, export it again with transparency."
    ]
