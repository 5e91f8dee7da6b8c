"""Masks that a network has found before: a second check of the same photos needs neither the network nor torch.

A network sees all photos of a set, so that a file holds the masks of a set: with one photo replaced it is another one.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dreambooth3d.faults import gone_if_failed
from dreambooth3d.photos.masks.source import MaskSource, PhotoMask, SourcePhoto

COMPUTED_BY = ("torch", "numpy")
"""Packages whose release may change a mask."""
MOST_SETS, UNUSED_DAYS = 100, 90
"""How many sets are kept, and for how long after their last use; a set of five takes some 200 KiB."""
ENDING = ".masks"
_DAY_S = 86400.0


@dataclass(frozen=True)
class KeptMasks:
    """A folder of masks, which is this user's alone: one that others may read or write is left alone.

    Attributes:
        folder: of the files; it is made when there is something to keep.
        code: digest of the code that computes masks.
    """

    folder: Path
    code: str

    def of(self, network: MaskSource, sha256: str, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """What a network says of photos: as it is kept here, else by the network, and kept from now on.

        Args:
            network: sees nothing but the photos' pixels.
            sha256: of its weights.
            photos: of one set.
        """
        key = self._key(f"{network.name} {sha256}", photos)
        found = self._load(key)
        if found is None:
            found = network.masks(photos)
            with suppress(OSError):  # a full disk, or one that cannot be written: the next check takes longer
                self._save(key, found)
        return found

    def _key(self, network: str, photos: Sequence[SourcePhoto]) -> str:
        """SHA-256 of all that masks depend on."""
        packages = " ".join(version(name) for name in COMPUTED_BY)
        digest = hashlib.sha256(f"{network}\0{self.code}\0{packages}\0".encode())
        for photo in photos:
            digest.update(f"{photo.pixels.shape}\0".encode() + photo.pixels.tobytes())
        return digest.hexdigest()

    def _load(self, key: str) -> list[PhotoMask | None] | None:
        """The masks under a key; None where there are none, or not as they were written."""
        path = self.folder / f"{key}{ENDING}"
        try:
            if not _is_mine_alone(self.folder):
                return None
            written, _, content = path.read_bytes().partition(b"\n")
            if written != _digest(key, content):
                return None
            os.utime(path)  # when it was last in use
        except OSError:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as values:
            served, confidence, trusted = (values[name].tolist() for name in ("served", "confidence", "trusted"))
            masks = [values[str(index)] if there else None for index, there in enumerate(served)]
        return [
            None if mask is None else PhotoMask(mask, *figures)
            for mask, *figures in zip(masks, confidence, trusted, strict=True)
        ]

    def _save(self, key: str, masks: Sequence[PhotoMask | None]) -> None:
        """Write masks under a key at once, and remove what has not been used for long."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_mine_alone(self.folder):
            return
        self._forget_unused()
        arrays: dict[str, Any] = {
            "served": [mask is not None for mask in masks],
            "confidence": [0.0 if mask is None else mask.confidence for mask in masks],
            "trusted": [mask is not None and mask.trusted for mask in masks],
            **{str(index): mask.mask for index, mask in enumerate(masks) if mask is not None},
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        path = self.folder / f"{key}{ENDING}"
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with gone_if_failed(partial):
            partial.write_bytes(_digest(key, content.getvalue()) + b"\n" + content.getvalue())
            partial.replace(path)

    def _forget_unused(self) -> None:
        """Make room for one more set."""
        used = {path: path.stat().st_mtime for path in self.folder.glob(f"*{ENDING}")}
        newest = sorted(used, key=lambda path: -used[path])
        oldest = time.time() - UNUSED_DAYS * _DAY_S
        for place, path in enumerate(newest):
            if place >= MOST_SETS - 1 or used[path] < oldest:
                path.unlink(missing_ok=True)


def _digest(key: str, content: bytes) -> bytes:
    """SHA-256 of a file's content under its key, in hexadecimal digits."""
    return hashlib.sha256(key.encode() + content).hexdigest().encode()


def _is_mine_alone(folder: Path) -> bool:
    """Whether a folder is this user's, and nobody else may look or write into it.

    Raises:
        OSError: there is no such folder.
    """
    state = folder.lstat()
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077
