"""Where the bundled networks' weights are."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.places import repository

WEIGHTS = "model.safetensors"


def network_folder(folder: str) -> Path | None:
    """A network's folder, seen from the working directory or the repository; None without weights.

    Args:
        folder: relative, such as `models/masks`.
    """
    folders = (Path(folder), repository() / folder)
    return next((each for each in folders if (each / WEIGHTS).is_file()), None)
