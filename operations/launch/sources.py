"""Which library folders a step's result depends on, for ZenML's cache.

ZenML sees a step's own source only; a change in the library must invalidate the cache as well.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from zenml.config.cache_policy import CachePolicy

ROOT = Path(__file__).resolve().parents[2]
# Shared by all folders. Not config.py: its values are step parameters, which the cache key holds already.
SHARED = (
    "artifacts",
    "runtime",
    "hub",
    "images",
    "masks",
    "cameras",
    "prompts",
    "parallel",
    "record",
    "stages",
    "transfer",
    "weights",
)
# Of no influence on a training: they choose what is trained and report on it.
_BESIDE = (
    "dreambooth3d/config/fleet.py",
    "dreambooth3d/naming.py",
    "dreambooth3d/photos/fetch.py",
    "dreambooth3d/photos/remote.py",
    "steps/__init__.py",
    "operations/registry/registration.py",
    "steps/decide_subjects.py",
    "steps/resolve_dataset.py",
    "steps/retrain_apart.py",
    "steps/summarize.py",
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


@cache
def training_digest() -> str:
    """SHA-256 over the source that decides on a training's result: library, steps and the pipeline itself.

    What only starts, shows and compares trainings is left out, so that a change there retrains nothing.
    """
    files = [path for folder in ("dreambooth3d", "steps") for path in ROOT.joinpath(folder).rglob("*.py")]
    command_line = ROOT / "dreambooth3d" / "cli"
    files = [
        path
        for path in files
        if path.relative_to(ROOT).as_posix() not in _BESIDE and not path.is_relative_to(command_line)
    ]
    digest = hashlib.sha256()
    for path in sorted([*files, ROOT / "pipelines" / "training.py"]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
