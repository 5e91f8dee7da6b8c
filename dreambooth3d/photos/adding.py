"""A new subject under data/: photos, converted where need be, and subject.yaml, recorded by DVC; all or nothing."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import ExifTags, Image

from dreambooth3d.config.base import text_problem
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError, DatasetError, PhotoSetError, gist
from dreambooth3d.naming import printable, subject_named
from dreambooth3d.photos.cameras.focal import focal_length
from dreambooth3d.photos.check import inspect_folder
from dreambooth3d.photos.decoding import KEPT_SIDE_PX, content_format, decoded
from dreambooth3d.photos.masks.given import read_mask
from dreambooth3d.photos.reading import read_photo
from dreambooth3d.photos.subject import (
    CAPTION_SUFFIXES,
    MASK_ENDING,
    SUBJECT_FILE,
    caption_file,
    mask_file,
    photo_files,
    shown_path,
)
from dreambooth3d.photos.tracking import DATA, POINTER, recorded_entries, repository_root, sub_entries
from dreambooth3d.temporary import temporary_folder

KEPT = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp"}
"""Formats that are kept as they are; the others become JPEG, or PNG where there is transparency."""
MAX_SIDE_PX = 2 * KEPT_SIDE_PX
"""From this longer side on a photo is stored reduced, as the check would reduce it anyway."""
QUALITY = 95
_HEAD_BYTES = 64


@dataclass(frozen=True)
class AddedPhoto:
    """One photo of a new subject: its new name, from which file, and whether it was converted."""

    name: str
    source: Path
    converted: bool


@dataclass(frozen=True)
class AddedSubject:
    """A new subject under data/."""

    folder: Path
    photos: tuple[AddedPhoto, ...]


def add_subject(name: str, files: Sequence[Path], class_noun: str) -> AddedSubject:
    """Make `data/<name>` of photos, and let DVC record it and nothing else in data/.

    All is checked before anything is written, and where DVC fails all is as before. Photos are numbered in the given
    order. A mask and a caption beside a photo come along.

    Args:
        name: of the subject, a checked `photos.subject`.
        files: photos, or folders of photos.
        class_noun: what the subject is, a checked `photos.class_noun`.

    Raises:
        ConfigError: a name that cannot be one, or a folder that is no DVC repository.
        DatasetError: there is such a subject, or DVC cannot record it.
        PhotoSetError: the photos cannot be used.
    """
    root = repository_root()
    target = root / DATA / name
    _require_free(name, target, root)
    photos = _photos(files)
    scratch = root / ".dvc" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with temporary_folder(scratch) as folder:
        staged = folder / "subject"
        staged.mkdir()
        added = tuple(_stored(photo, staged, number) for number, photo in enumerate(photos))
        (staged / SUBJECT_FILE).write_text(yaml.safe_dump({"class_noun": class_noun}, allow_unicode=True))
        _check(staged, target)
        _record(staged, target, root)
    return AddedSubject(target, added)


def _require_free(name: str, target: Path, root: Path) -> None:
    if name != subject_named(name) or name.startswith(".") or text_problem(name) is not None:
        raise ConfigError(
            f"photos add: {printable(name)!r} can be no subject's name, since it starts with a dot, is too long, or "
            "holds ${...}, a backslash or what does not print. Choose another one."
        )
    if not (root / ".dvc").is_dir():
        raise ConfigError(f"photos add: {printable(str(root))} is no DVC repository. Go to the project's folder first.")
    shown = shown_path(target)
    if os.path.lexists(target):
        raise DatasetError(
            f"{shown}: there is such a subject already. To replace its photos, first run `rm -r {shown} && dvc add "
            f"{DATA}`; or choose another name."
        )
    if sub_entries(recorded_entries(root) or {}, name):
        raise DatasetError(
            f"{shown}: {POINTER} records such a subject, whose photos are not here. To replace them, first run "
            f"`dvc add {DATA}`, which forgets all that is not here; or choose another name."
        )


def _photos(files: Sequence[Path]) -> list[Path]:
    """The photos among files and in folders, in the given order, each once.

    A mask or caption of one of them comes with its photo.
    """
    found: list[Path] = []
    for path in files:
        if not path.exists():
            raise PhotoSetError(f"{shown_path(path)}: there is no such file. Check its path.")
        found += photo_files(path) if path.is_dir() else [path]
    places = {path.with_suffix("") for path in found}

    def beside(path: Path) -> bool:
        place = path.with_suffix("")
        masked = path.stem.endswith(MASK_ENDING)
        if path.suffix in CAPTION_SUFFIXES:
            return any(other.with_suffix("") == place and other.suffix not in CAPTION_SUFFIXES for other in found)
        return masked and place.with_name(path.stem.removesuffix(MASK_ENDING)) in places

    photos = list(dict.fromkeys(path for path in found if not beside(path)))
    if not photos:
        raise PhotoSetError("photos add: there are no photos among the files. Name at least three.")
    return photos


def _stored(photo: Path, folder: Path, number: int) -> AddedPhoto:
    """Write one photo, with its mask and caption, under its number."""
    with photo.open("rb") as file:
        suffix = KEPT.get(content_format(file.read(_HEAD_BYTES)) or "")
    mask, caption = mask_file(photo), caption_file(photo)
    read = read_photo(photo)
    converted = suffix is None or max(read.width, read.height) >= MAX_SIDE_PX
    if converted:
        suffix = _convert(photo, folder, f"{number:02d}")
    else:
        shutil.copyfile(photo, folder / f"{number:02d}{suffix}")
        if mask is not None:
            shutil.copyfile(mask, folder / f"{number:02d}{MASK_ENDING}.png")
    if caption is not None:
        shutil.copyfile(caption, folder / f"{number:02d}{CAPTION_SUFFIXES[0]}")
    return AddedPhoto(f"{number:02d}{suffix}", photo, converted)


def _convert(photo: Path, folder: Path, stem: str) -> str:
    """Write a photo as the check decodes it, and its mask at the same size; the suffix that it has got.

    Of what the camera noted its focal length alone is kept.
    """
    image, size = decoded(photo)
    exif, length = Image.Exif(), focal_length(photo)
    if not math.isnan(length):
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = round(length)
    if image.mode == "RGBA":
        suffix = ".png"
        image.save(folder / f"{stem}{suffix}", exif=exif)
    else:
        suffix = ".jpg"
        image.save(folder / f"{stem}{suffix}", quality=QUALITY, subsampling=0, exif=exif)
    mask = read_mask(photo, size)
    if mask is not None:
        resized = Image.fromarray(mask).resize(image.size, Image.Resampling.BOX)
        resized.save(folder / f"{stem}{MASK_ENDING}.png")
    return suffix


def _check(staged: Path, target: Path) -> None:
    """Whether a set of such photos can be used, with errors that name the folder that it is to become."""
    try:
        inspect_folder(staged, PhotosConfig())
    except PhotoSetError as error:
        raise PhotoSetError(str(error).replace(shown_path(staged), shown_path(target))) from None


def _record(staged: Path, target: Path, root: Path) -> None:
    """Put the folder in its place and let DVC record it; where that fails, all is as before."""
    try:
        from dvc.repo import Repo
    except ImportError:
        raise DatasetError("photos add: DVC is not installed. Install it with `pip install dvc`.") from None
    kept = {path: path.read_bytes() for path in (root / POINTER, root / ".gitignore") if path.is_file()}
    target.parent.mkdir(exist_ok=True)
    os.rename(staged, target)
    scm = any((folder / ".git").exists() for folder in (root, *root.parents))
    try:
        with Repo(str(root), config={"core": {"no_scm": not scm}}) as repo:
            repo.scm_context.quiet = True  # whoever called says what comes next
            repo.add([str(target if (root / POINTER).is_file() else target.parent)])
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        for path in (root / POINTER, root / ".gitignore"):
            if path in kept:
                path.write_bytes(kept[path])
            else:
                path.unlink(missing_ok=True)
        if not isinstance(error, Exception):
            raise
        raise DatasetError(
            f"{shown_path(target)}: DVC cannot record it ({gist(error)}), so that nothing was kept. Correct that, and "
            "give the command again."
        ) from error
