"""Who is in the photos: the subject's folder and its `subject.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, ValidationError

from dreambooth3d.config.base import text_problem
from dreambooth3d.config.photos import ClassNoun, Identifier, PhotosConfig
from dreambooth3d.errors import ConfigError, DatasetError, PhotoSetError
from dreambooth3d.naming import printable, subject_named
from dreambooth3d.photos.public import PHOTOGRAPHERS
from dreambooth3d.photos.tracking import DATA, recorded_entries, repository_root, sub_entries
from dreambooth3d.strict_yaml import read_yaml

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff")
SUBJECT_FILE = "subject.yaml"
MASK_ENDING = "_mask"
MASK_FOLDER = "masks"
CAPTION_SUFFIXES = (".txt", ".TXT")
OTHER_CAPTION_SUFFIXES = (".caption", ".cap")
"""What other trainers call captions; they are not read here."""
DEFAULT_IDENTIFIER = "sks"
_URI = "file:///"


class SubjectInfo(BaseModel):
    """What `subject.yaml` says; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    class_noun: ClassNoun
    """What the subject is, for example dog."""
    identifier: Identifier = DEFAULT_IDENTIFIER
    """A rare token that stands for the subject."""
    description: str = ""
    """The subject's caption without identifier, for R-precision."""


def subject_name(folder: Path) -> str:
    """The name of the subject whose photos a folder holds.

    Raises:
        ConfigError: the folder is the root of the file system, which has no name.
    """
    name = os.path.basename(os.path.abspath(folder))
    if not name:
        raise ConfigError(f"photos.dir: {folder} has no name, which the subject's would be. Put the photos elsewhere.")
    return subject_named(name)


def _chosen(config: PhotosConfig) -> str:
    """The chosen folder's name under data/.

    Raises:
        ConfigError: none is chosen.
    """
    if config.subject is None:
        raise ConfigError("photos: no photos are named. Set photos.subject to a folder under data/, or photos.dir.")
    return config.subject


def folder_setting(path: str) -> str:
    """How `photos.dir` names a folder: by its path, or by a `file:` URI where no YAML or ZenML could keep the path.

    That is, with bytes that are not UTF-8, and with `${...}`, in place of which ZenML sets environment variables.
    """
    return path if text_problem(path) is None else Path(os.path.expanduser(path)).absolute().as_uri()


def photo_folder(config: PhotosConfig, root: Path = Path(".")) -> Path:
    """Where the photos are: `dir` (relative to the current directory), else `data/<subject>` in their repository."""
    if config.dir is None:
        return photo_repository(config, root) / DATA / _chosen(config)
    if config.dir.startswith(_URI):
        return Path(os.fsdecode(unquote_to_bytes(config.dir.removeprefix("file://"))))
    return Path(os.path.expanduser(config.dir))


def photo_repository(config: PhotosConfig, root: Path = Path(".")) -> Path:
    """The repository of a subject's photos: `root`'s, or a local copy of what `dataset` names, fetched if need be.

    Raises:
        DatasetError: the dataset is not to be had.
    """
    if config.dataset is None:
        return repository_root(root)
    from dreambooth3d.photos.remote import fetch_subject

    return fetch_subject(config.dataset, _chosen(config))


def shown_path(folder: Path) -> str:
    """The folder as error messages name it: relative to the repository or the current directory where it is inside."""
    for base in (repository_root(), Path.cwd()):
        if folder.absolute().is_relative_to(base):
            return printable(folder.absolute().relative_to(base).as_posix())
    return printable(str(folder))


def resolve_folder(config: PhotosConfig, root: Path = Path(".")) -> tuple[Path, SubjectInfo]:
    """The folder of the configured photos, and who is in them.

    `photos.dir` wins over `photos.subject`, and `photos.class_noun`, `.identifier` and `.description` win over the
    folder's `subject.yaml`.

    Raises:
        ConfigError: no folder is configured, no class noun is known, or `subject.yaml` is wrong.
        PhotoSetError: there is no such folder.
        DatasetError: the subject is tracked by DVC but not pulled.
    """
    folder = photo_folder(config, root)
    if not os.path.isdir(folder):
        raise _missing(config, repository_root(root), folder)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PhotoSetError(f"{shown_path(folder)}: may not be read. Give yourself the right to, with chmod u+rx.")
    path = folder / SUBJECT_FILE
    values = read_mapping(path) if path.is_file() else {}
    overrides = {"class_noun": config.class_noun, "identifier": config.identifier, "description": config.description}
    values |= {key: value for key, value in overrides.items() if value is not None}
    if "class_noun" not in values:
        raise ConfigError(
            f"{shown_path(folder)}: it is not known what the subject is. "
            f"Write `class_noun: dog`, for example, into {SUBJECT_FILE} there, or give `photos check` --class-noun dog "
            "and a run photos.class_noun=dog."
        )
    return folder, _subject_info(values, path)


def _missing(config: PhotosConfig, root: Path, folder: Path) -> PhotoSetError | DatasetError:
    """The error for a folder that is not there."""
    shown = shown_path(folder)
    if config.dir is not None:
        what = "is not a folder" if os.path.exists(folder) else "there is no such folder"
        return PhotoSetError(f"{shown}: {what}. Check photos.dir, which is relative to the current directory.")
    tracked = recorded_entries(root) or {}
    if sub_entries(tracked, folder.name):
        return DatasetError(
            f"{shown}: the photos are tracked by DVC but not here. Run `dvc pull`, or set photos.dataset={{}}, so that "
            "each step fetches them."
        )
    if folder.name in fetchable_subjects():
        return PhotoSetError(f"{shown}: the photos are not here yet. Run `dreambooth3d photos fetch {folder.name}`.")
    here = {path.name for path in folder.parent.glob("*/")}
    known = sorted(here | {path.split("/")[0] for path in tracked if "/" in path})
    names = ", ".join(known) if known else "none"
    return PhotoSetError(f"{shown}: there is no such subject. Choose photos.subject among {names}, or set photos.dir.")


def fetchable_subjects() -> tuple[str, ...]:
    """The public subjects that `dreambooth3d photos fetch` brings."""
    return tuple(PHOTOGRAPHERS)


def read_mapping(path: Path) -> dict[str, object]:
    """A YAML file with keys and values, read as strictly as any (`dreambooth3d.strict_yaml`)."""
    values = read_yaml(path, shown_path(path)).plain()
    if not isinstance(values, dict):
        raise ConfigError(f"{shown_path(path)}: has no keys. Write `class_noun: dog` (or what the subject is) into it.")
    return values


def _subject_info(values: dict[str, object], path: Path) -> SubjectInfo:
    """Validate, with one sentence for the first thing that is wrong."""
    try:
        return SubjectInfo.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, allowed = ".".join(map(str, first["loc"])), ", ".join(SubjectInfo.model_fields)
        where = f"{shown_path(path)} (with the overrides in photos)" if path.is_file() else "photos"
        raise ConfigError(f"{where}: {key}: {first['msg']}. The keys are {allowed}, all of them text.") from None


def photo_files(folder: Path) -> list[Path]:
    """The photos in a folder, sorted by name, without the masks of others; sub-folders and hidden files are left alone.

    `NAME_mask.png` is a mask where there is a photo NAME.
    """
    images = sorted((path for path in folder.iterdir() if _is_image(path)), key=lambda path: path.name)
    names = {path.stem for path in images}
    return [path for path in images if not (_is_mask(path) and path.stem.removesuffix(MASK_ENDING) in names)]


def mask_file(photo: Path) -> Path | None:
    """The mask beside a photo NAME: `NAME_mask.png`, `masks/NAME.png` or `masks/NAME_mask.png`; None where none is."""
    masked, inside = f"{photo.stem}{MASK_ENDING}.png", photo.parent / MASK_FOLDER
    places = (photo.parent / masked, inside / f"{photo.stem}.png", inside / masked)
    return next((path for path in places if path.is_file()), None)


def caption_file(photo: Path) -> Path | None:
    """The caption beside a photo NAME, `NAME.txt`; None where none is."""
    places = (photo.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    return next((path for path in places if path.is_file()), None)


def stray_captions(folder: Path) -> list[Path]:
    """Texts that are no photo's caption, sorted by name, among them captions under other trainers' endings."""
    used = {caption_file(photo) for photo in photo_files(folder)}
    suffixes = (*CAPTION_SUFFIXES, *OTHER_CAPTION_SUFFIXES)
    texts = (path for path in folder.iterdir() if _is_visible_file(path) and path.suffix in suffixes)
    return sorted(path for path in texts if path not in used)


def masks_in_other_formats(folder: Path) -> list[Path]:
    """Images that are named as a photo's mask and are no PNG, sorted by name: they would be taken for photos."""
    images = photo_files(folder)
    names = {path.stem for path in images}
    return [path for path in images if path.stem.endswith(MASK_ENDING) and path.stem.removesuffix(MASK_ENDING) in names]


def stray_masks(folder: Path) -> list[Path]:
    """Images in `masks/` that are no photo's mask, sorted by name."""
    inside = folder / MASK_FOLDER
    if not inside.is_dir():
        return []
    used = {mask_file(photo) for photo in photo_files(folder)}
    return sorted(path for path in inside.iterdir() if _is_image(path) and path not in used)


def other_images(folder: Path) -> list[Path]:
    """Image files in formats that are not read, sorted by name."""
    suffixes = (".gif", ".bmp", ".jfif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
    return sorted(path for path in folder.iterdir() if _is_visible_file(path) and path.suffix.lower() in suffixes)


def videos(folder: Path) -> list[Path]:
    """Video files, sorted by name; beside photos they are a phone's moving ones, and no matter."""
    suffixes = (".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp")
    return sorted(path for path in folder.iterdir() if _is_visible_file(path) and path.suffix.lower() in suffixes)


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.stem.endswith(MASK_ENDING)


def _is_image(path: Path) -> bool:
    return _is_visible_file(path) and path.suffix.lower() in PHOTO_SUFFIXES


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
