"""Files that settings name."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def given_file(path: Path | str) -> Path | None:
    """A file that a setting names, seen from the working directory or the checkout; None where there is none."""
    given = Path(path).expanduser()
    return next((each for each in (given, CHECKOUT / given) if each.is_file()), None)
