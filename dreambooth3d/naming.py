"""Names: of a subject, after its folder, and of its assets in ZenML and in MLflow."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

from dreambooth3d.errors import ArtifactError

_PREFIX = "dreambooth3d-"
# What a complete version says of itself in either registry.
LINEAGE = ("data.dvc_md5", "data.hash", "git.commit", "zenml.pipeline_run", "subject", "status")
# MLflow keeps 250 characters of a parameter's key, ZenML 255 of a model's name, and both get a few more of ours.
_LONGEST = 200
# All else is escaped; leading dots would be a path, and databases compare names without the spaces at their ends.
_ESCAPED = re.compile(r"[^\w. -]+|^[. ]+| +$")
# A drive, and what separates folders elsewhere or ends a name.
_OUTSIDE = re.compile(r"^[A-Za-z]:|[\\\0]")
_JOINERS = "\u200c\u200d"
_ERRORS = "surrogateescape"  # a command's argument may be any bytes


def printable(text: str) -> str:
    """A name or path of the file system as text on one line, which any file, terminal and database takes.

    Backslashes, characters that do not print, and bytes that are not UTF-8 become escapes as in Python's literals, so
    that no two names look alike.
    """
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python shows a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF and not character.isprintable():
        return f"\\u{code:04x}"
    if character != "\\" and (character.isprintable() or character in _JOINERS):
        return character
    return character.encode("unicode_escape").decode()


def subject_named(folder: str) -> str:
    """The name of the subject whose photos lie in a folder of this name: the same, where it can be printed and kept.

    Two folders' subjects never have the same name. One that the registries would find too long is cut, and ends in its
    digest after `\\...`, which no other holds.
    """
    name = printable(folder)
    if len(escaped(name)) <= _LONGEST:
        return name
    ending = f"\\...{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    cuts = (f"{printable(folder[:length])}{ending}" for length in range(_LONGEST, 0, -1))
    return next(cut for cut in cuts if len(escaped(cut)) <= _LONGEST)


def escaped(subject: str) -> str:
    """A subject's name as registries and addresses take it, reversible.

    Letters, digits, `_`, `-`, `.` and spaces stay as they are; all else is written as in a URL.
    """
    return _ESCAPED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode(errors=_ERRORS)), subject)


def model_name(subject: str) -> str:
    """The name under which a subject's assets are registered: any subject's, and each has its own."""
    return f"{_PREFIX}{escaped(subject)}"


def parameter_name(subject: str) -> str:
    """A subject's name as part of the name of an MLflow parameter, in which a colon may stand but no percent sign."""
    return escaped(subject).replace("%", ":")


def subject_of(model: str) -> str | None:
    """The subject of a registered model, None for a model that is not of this product."""
    return unquote(model.removeprefix(_PREFIX)) if model.startswith(_PREFIX) else None


def inner_name(name: object) -> str:
    """A file's name as a file tells it, relative, with forward slashes, if it stays in the folder that it is told for.

    Raises:
        ArtifactError: it is no text, or leads elsewhere on some system.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") or _OUTSIDE.search(part) for part in parts):
        shown = printable(str(name))[:80]
        raise ArtifactError(f"{shown!r} is no name of a file inside a folder. Do not use what names it.")
    return "/".join(parts)


def below(folder: Path, name: object) -> Path:
    """The path of a file in a folder by a name that a file tells: the one way to join the two.

    Raises:
        ArtifactError: the name, or a link on its way, leads out of the folder.
    """
    path = folder / inner_name(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{path}: a link leads out of its folder. Do not use what names it.")
    return path
