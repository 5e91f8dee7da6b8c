"""The code that ZenML uploads for remote steps: the product's own, without models, data, pictures and tests.

ZenML takes every file that git tracks. The image carries the models (docker/Dockerfile), DVC's remote the photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zenml.utils import code_utils, source_utils

from dreambooth3d import places

LEFT_OUT = frozenset(
    {
        "models", "data", "data_store", "docs", "tests", "benchmarks", "docker", "examples", "outputs", "build", "dist",
        ".git", ".ci", ".venv", ".zenconfig", ".dreambooth3d", ".carry", ".pytest_cache", ".ruff_cache",
    }
)  # fmt: skip
_CACHES = ("__pycache__", ".dvc/cache/", ".dvc/tmp/")


class LeanCodeArchive(code_utils.CodeArchive):
    """A code archive without what remote steps get elsewhere, or not at all."""

    def get_files(self) -> dict[str, str]:
        """The files by their path in the archive, sorted."""
        return {name: path for name, path in super().get_files().items() if is_code(name)}


def is_code(name: str) -> bool:
    """Whether a file belongs into the archive.

    Args:
        name: relative to the archive's root.
    """
    parts = Path(name).parts
    return parts[0] not in LEFT_OUT and not any(cache in Path(name).as_posix() for cache in _CACHES)


@contextmanager
def known_source_root() -> Iterator[None]:
    """Let ZenML, for a while, look for the library's files where a wheel has put them, and not in the user's folder."""
    before = source_utils._CUSTOM_SOURCE_ROOT
    if places.installed():
        source_utils.set_custom_source_root(str(places.LIBRARY.parent))
    try:
        yield
    finally:
        source_utils.set_custom_source_root(before)


@contextmanager
def lean_code_archive() -> Iterator[None]:
    """Let ZenML, which offers no setting for it, build its code archive with `LeanCodeArchive` for a while."""
    original, code_utils.CodeArchive = code_utils.CodeArchive, LeanCodeArchive
    try:
        yield
    finally:
        code_utils.CodeArchive = original
