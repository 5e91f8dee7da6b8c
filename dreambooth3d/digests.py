"""What files hash to, for who needs no tensors: those take seconds to import."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _sum_of(file: Path, _size: int, _modified_ns: int) -> str:
    return sha256_file(file)


def sha256_once(file: Path) -> str:
    """SHA-256 of a file; one that has not changed is read once per process, since a model can have gigabytes."""
    state = file.stat()
    return _sum_of(file, state.st_size, state.st_mtime_ns)
