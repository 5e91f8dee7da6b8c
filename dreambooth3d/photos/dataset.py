"""Which version of which photo set: the hash that identifies it, drift from what DVC recorded, and the ground truth."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError, DatasetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.held_out import held_out_files
from dreambooth3d.photos.subject import (
    SUBJECT_FILE,
    caption_file,
    mask_file,
    photo_files,
    photo_folder,
    photo_repository,
    resolve_folder,
    shown_path,
)
from dreambooth3d.photos.tracking import (
    Entries,
    entries_digest,
    present_entries,
    recorded_entries,
    sub_entries,
)
from dreambooth3d.strict_yaml import read_yaml

if TYPE_CHECKING:
    from dreambooth3d.artifacts import GroundTruth

GROUND_TRUTH_FILE = "ground_truth.yaml"
PHOTO_AZIMUTHS = "photo_azimuths_deg"
"""Key in that file beside the recipe's own."""
UNTRACKED = "untracked:"


def dataset_hash(config: PhotosConfig, root: Path = Path("."), recorded: Entries | None = None) -> str:
    """The identity of the configured photo set.

    For a subject that `data.dvc` records, DVC's MD5 of that sub-directory (32 hex digits and `.dir`), after a check
    that the files on disk are the recorded ones. For `photos.dir`, and for a folder under data/ that was never added
    to DVC, `untracked:` and a SHA-256 over the sorted names and bytes of photos, their masks and
    captions, `subject.yaml` and `ground_truth.yaml`.

    Args:
        config: `dir` is relative to the current directory, `subject` to `root`'s repository.
        root: a folder inside the repository.
        recorded: what `data.dvc` records of the subject, for who has read it; default it is read.

    Raises:
        DatasetError: a tracked file is changed or missing, a file in a tracked folder is not tracked, or nothing is
            pulled.
        PhotoSetError, ConfigError: there is no such folder, or it is not clear what it shows.
    """
    folder, _ = resolve_folder(config, root)
    if config.dir is None:
        root = photo_repository(config, root)
        if recorded is None:
            recorded = sub_entries(recorded_entries(root) or {}, folder.name)
        if recorded:
            _refuse_drift(recorded, present_entries(folder, root), folder)
            return entries_digest(recorded)
    return UNTRACKED + content_digest(folder)


def _refuse_drift(recorded: Entries, present: Entries, folder: Path) -> None:
    """Raise for the first file, by name, that differs from the record."""
    for path in sorted({*recorded, *present}):
        shown = f"{shown_path(folder)}/{printable(path)}"
        if path not in present:
            remedy = "Run `dvc pull` to restore it, or `dvc add data` to record the removal."
            raise DatasetError(f"{shown}: is tracked by DVC but missing. {remedy}")
        if path not in recorded:
            raise DatasetError(f"{shown}: is not tracked by DVC. Run `dvc add data` to record it, or remove it.")
        if recorded[path] != present[path]:
            remedy = "Run `dvc pull --force` to restore it, or `dvc add data` to record the change."
            raise DatasetError(f"{shown}: has changed since DVC recorded it. {remedy}")


def content_digest(folder: Path) -> str:
    """SHA-256 over the sorted names and bytes of a folder's photos with what is beside them.

    That is, their masks and captions, `subject.yaml` and `ground_truth.yaml`.
    """
    photos = photo_files(folder)
    extra = [folder / name for name in (SUBJECT_FILE, GROUND_TRUTH_FILE) if (folder / name).is_file()]
    extra += {path for photo in photos for path in (mask_file(photo), caption_file(photo)) if path is not None}
    digest = hashlib.sha256()
    for path in sorted([*photos, *extra], key=lambda path: path.relative_to(folder).as_posix()):
        # Hashes of fixed length, so that no shift of bytes between names and files can go unseen.
        digest.update(hashlib.sha256(os.fsencode(path.relative_to(folder))).digest())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def ground_truth(config: PhotosConfig, root: Path = Path(".")) -> GroundTruth:
    """What `ground_truth.yaml` beside the photos says; empty where there is none. For `evaluate` only.

    Raises:
        DatasetError: the file is there, but is not a YAML mapping, or its photo azimuths are not numbers.
    """
    from dreambooth3d.artifacts import GroundTruth  # needs torch, unlike the hashes

    path = photo_folder(config, root) / GROUND_TRUTH_FILE
    if not path.is_file():
        return GroundTruth(recipe={})
    try:
        recipe = read_yaml(path).plain()
    except ConfigError:
        recipe = None
    if not isinstance(recipe, dict):
        raise DatasetError(
            f"{shown_path(path)}: is not a YAML mapping. Run `dvc pull --force` to restore it, or remove it."
        )
    azimuths = recipe.pop(PHOTO_AZIMUTHS, [])
    if not isinstance(azimuths, list) or not all(isinstance(angle, int | float) for angle in azimuths):
        raise DatasetError(f"{shown_path(path)}: {PHOTO_AZIMUTHS} is not a list of numbers. Correct or remove it.")
    return GroundTruth(recipe=recipe, photo_azimuths_deg=_of_learned(azimuths, photo_files(path.parent), config))


def _of_learned(azimuths: Sequence[float], files: Sequence[Path], config: PhotosConfig) -> tuple[float, ...]:
    """The azimuths of those photos that are not held out."""
    if not config.hold_out or len(azimuths) != len(files):
        return tuple(map(float, azimuths))
    held_out = held_out_files(files, config)
    return tuple(float(angle) for angle, file in zip(azimuths, files, strict=True) if file.name not in held_out)


def require_ground_truth(truth: GroundTruth) -> None:
    """For what cannot go without it.

    Raises:
        DatasetError: no truth is known.
    """
    if not truth.known:
        raise DatasetError(
            f"photos: the subject's true looks are not known, for lack of {GROUND_TRUTH_FILE} beside them. "
            "Choose a toybox subject."
        )
