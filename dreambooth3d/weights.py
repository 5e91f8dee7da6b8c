"""Handles to large weights: where they lie and what they hash to, never the weights themselves."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import fsspec
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth3d.errors import BaseModelError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class WeightsRef:
    """One safetensors file.

    Attributes:
        uri: a local path or any address that fsspec opens.
        sha256: of the file's bytes.
        size_bytes: its length.
    """

    uri: str
    sha256: str
    size_bytes: int

    def load(self) -> dict[str, Tensor]:
        """The tensors, on the CPU.

        Raises:
            BaseModelError: the file is gone, or is not the one that this handle was made for.
        """
        try:
            path = fsspec.open_local(f"simplecache::{self.uri}") if "://" in self.uri else self.uri
            if sha256_file(path) != self.sha256:
                raise BaseModelError(
                    f"{self.uri}: these weights are not the ones that were saved (another SHA-256). Run the step that "
                    "made them again."
                )
            return load_file(path)
        except FileNotFoundError as error:
            raise BaseModelError(f"{self.uri}: these weights are gone. Run the step that made them again.") from error


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def save_weights(tensors: dict[str, Tensor], path: Path) -> WeightsRef:
    """Write tensors as safetensors (atomically) and return their handle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, partial)
    partial.replace(path)
    return WeightsRef(str(path), sha256_file(path), path.stat().st_size)
