"""Masks of subjects before smooth backgrounds, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dreambooth3d.photos.masks.backgrounds import mask_before_smooth
from dreambooth3d.photos.masks.source import PhotoMask, SourcePhoto


@dataclass(frozen=True)
class SmoothBackground:
    """Whatever differs from a background that fits the frame's border (`dreambooth3d.backdrops`)."""

    name: str = "smooth_background"

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """A mask of each photo whose background can be told."""
        return [mask_before_smooth(photo) for photo in photos]
