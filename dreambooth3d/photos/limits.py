"""What stops a photo set: too few or too many photos, too small ones, copies in place of photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.findings import counted
from dreambooth3d.photos.reading import RawPhoto
from dreambooth3d.photos.subject import (
    PHOTO_SUFFIXES,
    masks_in_other_formats,
    other_images,
    photo_files,
    shown_path,
    videos,
)

MAX_NAMED = 5


def counted_files(folder: Path, config: PhotosConfig) -> list[Path]:
    """The photo files of a folder.

    Raises:
        PhotoSetError: there is no such folder, or the number of its photos is not acceptable.
    """
    shown = shown_path(folder)
    if not folder.is_dir():
        raise PhotoSetError(f"{shown}: there is no such folder. Check the path of the photos.")
    files = photo_files(folder)
    if not files:
        others = ", ".join(printable(path.name) for path in other_images(folder)[:MAX_NAMED])
        hint = f" Export as one of these what is there: {others}." if others else ""
        if found := videos(folder):
            hint += f" Of a video, such as {printable(found[0].name)}, save four to eight sharp frames from all sides."
        raise PhotoSetError(f"{shown}: there are no photos. Put {', '.join(PHOTO_SUFFIXES)} files there.{hint}")
    if masks := masks_in_other_formats(folder):
        raise PhotoSetError(
            f"{shown_path(masks[0])}: has the name of a mask, but masks are PNG files. Save it as "
            f"{printable(masks[0].stem)}.png and remove this one, or give it another name if it is a photo."
        )
    if len(files) < config.min_count:
        raise PhotoSetError(
            f"{shown}: {counted(len(files))}, at least {config.min_count} are needed. "
            "Add photos from other sides, or lower photos.min_count in your config."
        )
    if len(files) > config.max_count:
        raise PhotoSetError(
            f"{shown}: {counted(len(files))}, at most {config.max_count} are allowed. "
            "Keep the sharpest from different sides, or raise photos.max_count in your config."
        )
    return files


def refuse_unusable(photos: Sequence[RawPhoto], held_out: Sequence[str], folder: Path, config: PhotosConfig) -> None:
    """Let no photos pass that are too small, or copies that leave too few distinct ones.

    Raises:
        PhotoSetError: they are.
    """
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
