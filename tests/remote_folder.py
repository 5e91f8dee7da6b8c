"""A folder as a remote artifact store that can be made to fail."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from zenml.io.local_filesystem import LocalFilesystem


class Remote(LocalFilesystem):
    """A folder as a store with addresses.

    Attributes:
        root: the folder.
        failure: what every opening of a file raises, if anything.
        fails_after: how many files are opened before that.
        short_reads: how many files still arrive without their end.
    """

    SUPPORTED_SCHEMES: ClassVar[set[str]] = {"faulty://"}
    root: ClassVar[Path] = Path()
    failure: ClassVar[Exception | None] = None
    fails_after: ClassVar[int] = 0
    short_reads: ClassVar[int] = 0

    @classmethod
    def local(cls, path: Any) -> str:
        """Where the folder holds what an address names."""
        return str(path).replace("faulty:/", str(cls.root), 1)

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        if Remote.failure is not None:
            if Remote.fails_after == 0:
                raise Remote.failure
            Remote.fails_after -= 1
        if "r" in mode and Remote.short_reads > 0 and str(name).endswith(".safetensors"):
            Remote.short_reads -= 1
            content = Path(Remote.local(name)).read_bytes()
            return io.BytesIO(content[: len(content) // 2])
        return LocalFilesystem.open(Remote.local(name), mode)

    @staticmethod
    def exists(path: Any) -> bool:
        return LocalFilesystem.exists(Remote.local(path))

    @staticmethod
    def isdir(path: Any) -> bool:
        return LocalFilesystem.isdir(Remote.local(path))

    @staticmethod
    def listdir(path: Any) -> Any:
        return LocalFilesystem.listdir(Remote.local(path))

    @staticmethod
    def makedirs(path: Any) -> None:
        LocalFilesystem.makedirs(Remote.local(path))

    @staticmethod
    def remove(path: Any) -> None:
        os.remove(Remote.local(path))

    @staticmethod
    def rmtree(path: Any) -> None:
        shutil.rmtree(Remote.local(path))
