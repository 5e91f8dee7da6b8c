"""Handles to large weights: where they lie and what they hash to, never the weights themselves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth3d.digests import sha256_file, sha256_once
from dreambooth3d.errors import ArtifactError, BaseModelError
from dreambooth3d.faults import gone_if_failed, in_one_sentence
from dreambooth3d.temporary import temporary_folder

SUMS = "SHA256SUMS"
_COPIED_BYTES = 1 << 24
Fetch = Callable[[str, str], None]
"""Copies a file from an address to a local path."""


def fetch_by_fsspec(uri: str, path: str) -> None:
    """What brings remote weights unless someone else does: fsspec, with the credentials of its own environment."""
    with fsspec.open(uri, "rb") as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, _COPIED_BYTES)


_fetch: Fetch = fetch_by_fsspec


def fetch_by(fetch: Fetch) -> None:
    """Bring remote weights by `fetch` from now on: whoever knows the store knows its address and its credentials."""
    global _fetch
    _fetch = fetch


@dataclass(frozen=True)
class WeightsRef:
    """One safetensors file.

    Attributes:
        uri: a local path or any address that fsspec opens.
        sha256: of the file's bytes.
        size_bytes: its length.
        referrer: URI of the artifact that refers to a file of another one's, or None.
    """

    uri: str
    sha256: str
    size_bytes: int
    referrer: str | None = field(default=None, compare=False)

    def load(self) -> dict[str, Tensor]:
        """The tensors, on the CPU.

        Raises:
            ArtifactError: the file is gone, or is not the one that this handle was made for.
        """
        with self._local_file() as path:
            self._require_saved(path)
            return load_file(path)

    def _require_saved(self, path: str) -> None:
        if sha256_file(path) != self.sha256:
            raise ArtifactError(
                f"{self.uri}: these weights are not the ones that were saved (another SHA-256). Run the step that made "
                "them again.",
                self.uri,
                self.referrer,
            )

    def kept_in(self, folder: Path) -> WeightsRef:
        """A handle to a local file: this one, or, of remote weights, a copy in the folder.

        Raises:
            ArtifactError: the file is gone, or is not the one that this handle was made for.
        """
        if "://" not in self.uri:
            return self
        path = folder / f"{self.sha256}.safetensors"
        if not path.exists() or sha256_file(path) != self.sha256:
            folder.mkdir(parents=True, exist_ok=True)
            with self._local_file(folder) as fetched:
                self._require_saved(fetched)
                os.replace(fetched, path)
        return replace(self, uri=str(path))

    @contextmanager
    def _local_file(self, folder: Path | None = None) -> Iterator[str]:
        """The file itself, or a temporary copy of a remote one (in the folder, or where temporary files lie)."""
        try:
            if "://" not in self.uri:
                yield self.uri
                return
            with temporary_folder(folder) as temporary:
                path = os.path.join(temporary, "weights.safetensors")
                _fetch(self.uri, path)
                yield path
        except FileNotFoundError as error:
            reason = f"{self.uri}: these weights are gone. Run the step that made them again."
            raise ArtifactError(reason, self.uri, self.referrer) from error


def no_longer_as_shipped(folder: Path) -> None:
    """Forget the list of a bundled model's files, before another model is written into its folder."""
    (folder.parent / SUMS).unlink(missing_ok=True)


def require_as_shipped(folder: Path) -> None:
    """Compare a bundled model's files with `SHA256SUMS` beside its folder; a model without such a list may be anything.

    Raises:
        BaseModelError: a file is missing, or is another than the list says.
    """
    sums = folder.parent / SUMS
    if not sums.is_file():
        return
    for line in sums.read_text().splitlines():
        expected, _, name = line.partition("  ")
        file = folder.parent / name
        if name.startswith(f"{folder.name}/") and (not file.is_file() or sha256_once(file) != expected):
            raise BaseModelError(
                f"{file}: is not the file that came with the product ({SUMS} beside it has another SHA-256). Restore "
                f"it with `git checkout {name}` in {folder.parent}, or put a model of your own into another folder."
            )


def save_weights(tensors: dict[str, Tensor], path: Path) -> WeightsRef:
    """Write tensors as safetensors (atomically) and return their handle.

    Raises:
        DiskError: the disk is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with in_one_sentence("", partial), gone_if_failed(partial):
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, partial)
        partial.replace(path)
    return WeightsRef(str(path), sha256_file(path), path.stat().st_size)
