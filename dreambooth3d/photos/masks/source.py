"""What a source of masks is, and what is measured of a mask whatever its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.digests import sha256_once
from dreambooth3d.errors import ConfigError

Mask = NDArray[np.uint8]
"""(height, width): 0 outside the subject, 255 on it."""
HALF = 128
SOURCES = {
    "files": "the mask file beside it", "alpha": "its transparency", "rembg": "rembg",
    "smooth_background": "the search for a plain background", "learned": "the bundled network",
}  # fmt: skip
"""What people may call the sources of masks."""
FULL_SHARE = 0.995
"""Share of the frame from which a mask says nothing."""
EMPTY_SHARE = 5.0e-4
"""Share of the frame below which a mask shows no subject."""


@dataclass(frozen=True)
class SourcePhoto:
    """A photo as a source of masks sees it.

    Attributes:
        path: its file.
        pixels: uint8 (height, width, 3), upright, shrunk as it travels, not padded.
        alpha: its transparency, None where it is opaque throughout.
        given: the mask in a file beside it, or None.
    """

    path: Path
    pixels: NDArray[np.uint8]
    alpha: Mask | None = None
    given: Mask | None = None


@dataclass(frozen=True)
class PhotoMask:
    """A mask of one photo.

    Attributes:
        mask: of the photo's size.
        confidence: how sure its source is, in [0, 1].
        trusted: whether it is good enough for the photo to be a target.
    """

    mask: Mask
    confidence: float
    trusted: bool


class MaskSource(Protocol):
    """Finds the subject in photos."""

    @property
    def name(self) -> str:
        """As `photos.masks` calls it."""
        ...

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """One mask for each photo of a set, None where the source does not serve."""
        ...


def require_pinned(file: Path, sha256: str) -> None:
    """Check that a network's file is the one that the run was started with.

    Raises:
        ConfigError: it is another one.
    """
    if sha256_once(file) != sha256:
        raise ConfigError(
            f"{file}: has changed since the run was started, or differs on this machine. Start the run again, or bring "
            "the same file here."
        )


def share(mask: Mask) -> float:
    """Share of the frame that the subject covers."""
    return float((mask >= HALF).mean())


def says_something(mask: Mask) -> bool:
    """Whether the mask is neither empty nor full."""
    return EMPTY_SHARE <= share(mask) <= FULL_SHARE


def cut_share(mask: Mask) -> float:
    """Share of the subject's outline that lies on the photo's frame: what is beyond it there is unknown."""
    inside = np.pad(mask >= HALF, 1)
    left, right = inside[1:-1, :-2], inside[1:-1, 2:]
    above, below = inside[:-2, 1:-1], inside[2:, 1:-1]
    subject = inside[1:-1, 1:-1]
    outline = subject & ~(left & right & above & below)
    at_frame = np.zeros_like(subject)
    at_frame[[0, -1], :] = True
    at_frame[:, [0, -1]] = True
    return float((outline & at_frame).sum() / max(1, outline.sum()))


def overlap(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    one, other = first >= HALF, second >= HALF
    return float((one & other).sum() / max(1, (one | other).sum())) if (one | other).any() else 1.0
