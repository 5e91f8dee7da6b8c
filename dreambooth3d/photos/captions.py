"""Captions beside the photos, as users of other trainers have them."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.config.base import text_problem
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.photos.subject import SubjectInfo, caption_file, shown_path
from dreambooth3d.prompts import names


def read_caption(photo: Path, config: PhotosConfig, info: SubjectInfo) -> tuple[str, str]:
    """A photo's caption, empty where there is none or none that is used; and why it is not used.

    Args:
        photo: its file NAME; the caption is in `NAME.txt`.
        config: says whether captions are wanted.
        info: the subject, which a caption must name.

    Raises:
        PhotoSetError: the file is no UTF-8 text, or cannot be part of a prompt.
    """
    path = caption_file(photo)
    if path is None:
        return "", ""
    if not config.captions:
        return "", f"the caption in {path.name} is ignored, as photos.captions=false asks for."
    try:
        caption = " ".join(path.read_text(encoding="utf-8-sig").split())
    except (UnicodeDecodeError, OSError):
        raise PhotoSetError(f"{shown_path(path)}: the caption is no UTF-8 text. Save it so, or remove it.") from None
    if problem := text_problem(caption, variables=False):
        raise PhotoSetError(f"{shown_path(path)}: {problem}.")
    if not (names(caption, info.identifier) and names(caption, info.class_noun)):
        wanted = f"{info.identifier} {info.class_noun}"
        return "", f"the caption in {path.name} is ignored, since it does not name the subject as {wanted!r}. Add that."
    return caption, ""
