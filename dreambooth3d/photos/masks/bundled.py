"""Where the bundled network for masks is, for who does not run it."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.networks.weights import WEIGHTS, network_folder

FOLDER = "models/masks"


def require_network() -> Path:
    """The folder of the bundled network.

    Raises:
        ConfigError: it is not there.
    """
    folder = network_folder(FOLDER)
    if folder is None:
        raise ConfigError(
            f"photos.masks: learned is asked for, but {FOLDER}/{WEIGHTS} is not there. Restore it with `git checkout "
            f"{FOLDER}`, or set photos.masks to another source."
        )
    return folder
