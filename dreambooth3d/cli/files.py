"""Files that a command writes where the user says: completely, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.naming import printable


def require_writable(path: Path, example: str) -> None:
    """Check, before anything is computed, that a file can be written.

    Args:
        path: of the file.
        example: a name that would do, for the sentence.

    Raises:
        ConfigError: it cannot.
    """
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if path.is_dir() else "no file can be written there"
        raise ConfigError(f"{printable(str(path))}: {what}. Name a file such as {example} in a folder that is there.")


def write_file(path: Path, text: str, what: str) -> None:
    """Write a text, in place of what was there.

    Args:
        path: of the file.
        text: its content.
        what: it is, for the sentence: "the page".

    Raises:
        ConfigError: it cannot be written.
    """
    partial = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.absolute().parent, encoding="utf-8", delete=False) as file:
            partial = file.name
            file.write(text)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        raise ConfigError(f"{printable(str(path))}: {what} cannot be written ({gist(error)}).") from None
