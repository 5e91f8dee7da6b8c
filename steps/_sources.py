"""Which library folders a step's result depends on, for ZenML's cache.

ZenML sees a step's own source only; a change in the library must invalidate the cache as well.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from zenml.config.cache_policy import CachePolicy

ROOT = Path(__file__).resolve().parents[1]
# Shared by all folders. Not config.py: its values are step parameters, which the cache key holds already.
SHARED = (
    "artifacts",
    "context",
    "hub",
    "images",
    "masks",
    "nerf/cameras",
    "parallel",
    "record",
    "stages",
    "transfer",
    "weights",
)


def library_files(*folders: str) -> list[str]:
    """The library's shared modules and those of the named folders, relative to the repository."""
    library = ROOT / "dreambooth3d"
    files = [library / f"{name}.py" for name in SHARED]
    files += [path for folder in folders for path in library.joinpath(folder).rglob("*.py")]
    return sorted({path.relative_to(ROOT).as_posix() for path in files})


def library(*folders: str) -> CachePolicy:
    """The cache policy of a step that uses these folders of the library."""
    return CachePolicy(file_dependencies=library_files(*folders))


@cache
def library_digest() -> str:
    """SHA-256 over the whole library's source, so that no resumable state of other code is continued."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.joinpath("dreambooth3d").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
