"""Captions beside the photos, as users of other trainers have them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from dreambooth3d.config.base import text_problem
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.subject import SubjectInfo, caption_file, shown_path

MAX_WORDS = 75
"""CLIP's text encoders read no more tokens, and a word is at least one."""


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
    except OSError as error:
        raise PhotoSetError(
            f"{shown_path(path)}: the caption cannot be opened ({error.strerror}). Correct that, or remove it."
        ) from None
    except UnicodeDecodeError:
        raise PhotoSetError(f"{shown_path(path)}: the caption is no UTF-8 text. Save it so, or remove it.") from None
    if problem := text_problem(caption, variables=False):
        raise PhotoSetError(f"{shown_path(path)}: {problem}.")
    if any(unicodedata.category(character) == "Cc" for character in caption):
        raise PhotoSetError(f"{shown_path(path)}: the caption holds control characters. Write it anew, or remove it.")
    problem = _unusable(caption, info)
    return ("", f"the caption in {printable(path.name)} is ignored, since it {problem}") if problem else (caption, "")


def _unusable(caption: str, info: SubjectInfo) -> str:
    """Why a caption is not used, and what to do; empty where it is."""
    from dreambooth3d.prompts import names  # needs torch, which photos without captions do not

    wanted, words = f"{info.identifier} {info.class_noun}", len(caption.split())
    if not caption:
        return f"is empty. Name the subject in it as {wanted!r}, or remove it."
    if not (names(caption, info.identifier) and names(caption, info.class_noun)):
        return f"does not name the subject as {wanted!r}. Add that."
    return f"has {words} words, and models read at most {MAX_WORDS}. Shorten it." if words > MAX_WORDS else ""
