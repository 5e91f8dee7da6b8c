"""Files that settings name."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.errors import ConfigError
from dreambooth3d.places import repository
from dreambooth3d.weights import sha256_file

CHECKOUT = repository()


def given_file(path: Path | str) -> Path | None:
    """A file that a setting names, seen from the working directory or the checkout; None where there is none."""
    given = Path(path).expanduser()
    return next((each for each in (given, CHECKOUT / given) if each.is_file()), None)


def require_unchanged(path: Path, digest: str) -> None:
    """Check that a file is the one of when the run began, where its SHA-256 was noted.

    Raises:
        ConfigError: it is another.
    """
    if digest and sha256_file(path) != digest:
        raise ConfigError(f"{path}: has changed since the run began. Run again, or put the file back.")
