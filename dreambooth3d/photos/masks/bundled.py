"""The bundled network for masks: where it is, and what it says, which alone needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.masks.source import PhotoMask, SourcePhoto, require_pinned
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


@dataclass(frozen=True)
class Learned:
    """The bundled network, which sees all photos of a set.

    Attributes:
        folder: of its weights.
        sha256: of the weights, as a run has pinned them.
    """

    folder: Path
    sha256: str
    name: str = "learned"

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """A mask of each photo, None where the network sees no subject.

        Raises:
            ConfigError: the weights are others than those pinned.
        """
        require_pinned(self.folder / WEIGHTS, self.sha256)
        from dreambooth3d.photos.masks.learned import learned_masks  # needs torch, which takes seconds to import

        return learned_masks(photos, self.folder)
