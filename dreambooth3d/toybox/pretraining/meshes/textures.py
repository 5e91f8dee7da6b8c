"""Where a model's textures are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dreambooth3d.toybox.pretraining.meshes.textured import Material, MeshError, read_texture

FindTexture = Callable[[str], Path | None]
"""The file of a texture, of the name that stands in a model, or None."""


@dataclass(frozen=True)
class TextureFinder:
    """Looks a texture up by its file name, or its stem under any ending, in `folders`, the first that has it."""

    folders: tuple[Path, ...]

    def __call__(self, name: str) -> Path | None:
        """Its file, or None."""
        wanted = re.split(r"[\\/]", name)[-1].lower()
        for folder in self.folders:
            for key in (wanted, wanted.rsplit(".", 1)[0]):
                if found := _pictures_in(folder).get(key):
                    return found
        return None


def texture_finder(*folders: Path) -> TextureFinder:
    """A finder in these folders."""
    return TextureFinder(folders)


@lru_cache(maxsize=4096)
def _pictures_in(folder: Path) -> dict[str, Path]:
    files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in _PICTURES and path.is_file()]
    return {path.stem.lower(): path for path in files} | {path.name.lower(): path for path in files}


_PICTURES = {".png", ".jpg", ".jpeg", ".tga", ".bmp", ".rgb", ".rgba", ".sgi", ".dds", ".webp", ".pcx", ".gif", ".tif"}


def textured(name: str, find: FindTexture, color: tuple[float, float, float, float] = (1, 1, 1, 1)) -> Material:
    path = find(name)
    if path is None:
        raise MeshError(f"no texture {name}.")
    return Material(color, read_texture(path))
