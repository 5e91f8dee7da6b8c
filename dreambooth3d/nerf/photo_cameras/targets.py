"""Views that a field is to reproduce: their pixels, what lies behind the subject, and where the subject is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreambooth3d.artifacts import PseudoViews, SubjectPhotos
from dreambooth3d.cameras import Cameras
from dreambooth3d.masks import FINE_SIZE, smooth_background, soft_masks, subject_masks
from dreambooth3d.transfer import send

MANY = 16


@dataclass(frozen=True)
class TargetPixels:
    """Pixels of target views.

    Attributes:
        color: (pixels, 3) in [0, 1].
        background: (pixels, 3) what would be seen there without the subject.
        mask: (pixels,) 1 on the subject, else 0.
        trusted: (pixels,) 1 where the mask can be trusted, else 0.
        gain: (pixels,) factor on the subject's colour there, or None for 1.
    """

    color: Tensor
    background: Tensor
    mask: Tensor
    trusted: Tensor
    gain: Tensor | None = None


@dataclass(frozen=True)
class TargetViews:
    """Views that a field is compared with.

    Attributes:
        images: (n, 3, height, width) in [0, 1].
        cameras: the n cameras, of photos as silhouettes tell them (NaN where they do not); None while they are unknown.
        background: (n, 3, height, width) the smooth background of each.
        masks: (n, height, width) of the subject, in [0, 1].
        trusted: (n,) whether each mask can be trusted, 1 or 0.
        words: the n view words as a scorer sees them, or nothing.
        off_front_deg: (n,) angle between camera and front in [0, 180], as a scorer estimates it, or None.
        gain: (n,) exposure of each view as a factor on the subject's colour, or None for 1.
    """

    images: Tensor
    cameras: Cameras | None
    background: Tensor
    masks: Tensor
    trusted: Tensor
    words: tuple[str, ...] = ()
    off_front_deg: Tensor | None = None
    gain: Tensor | None = None

    @property
    def known_cameras(self) -> Cameras:
        """The n cameras.

        Raises:
            ValueError: they are unknown.
        """
        if self.cameras is None:
            raise ValueError("The cameras of these views are unknown: search them first.")
        return self.cameras

    @staticmethod
    def of(images: Tensor, cameras: Cameras | None = None) -> TargetViews:
        """Views (n, 3, height, width) in [0, 1] with what lies behind the subject and where it is."""
        masks, trusted = subject_masks(images)
        return TargetViews(images, cameras, smooth_background(images), masks.float(), trusted.float())

    @staticmethod
    def of_pseudo_views(pseudo: PseudoViews, device: torch.device) -> TargetViews:
        """Pseudo views on a device. Where img2img has changed nothing, the renders' opacity is the mask."""
        views = TargetViews.of(pseudo.images.to(device), pseudo.cameras.to(device))
        if pseudo.strength > 0:
            return views
        return replace(views, masks=pseudo.opacity.to(device), trusted=torch.ones_like(views.trusted))

    @staticmethod
    def of_photos(photos: SubjectPhotos, size: int, device: torch.device) -> TargetViews | None:
        """The photos whose subject can be told from the background, `size` pixels wide, on a device; None if none."""
        off_front = torch.tensor(photos.off_front_deg) if photos.off_front_deg else None
        masks, background, trusted = soft_masks(photos.resized(FINE_SIZE).to(device), size)
        images = photos.resized(size).to(device)
        views = TargetViews(
            images, photos.cameras, background, masks, trusted.float(), words=photos.views, off_front_deg=off_front
        )
        return views.where(views.trusted > 0) if views.trusted.any() else None

    def where(self, chosen: Tensor) -> TargetViews:
        """The chosen (n,) bool of the views."""
        parts = {name: getattr(self, name)[chosen] for name in ("images", "background", "masks", "trusted")}
        words = tuple(word for word, kept in zip(self.words, chosen.tolist(), strict=False) if kept)
        off_front = None if self.off_front_deg is None else self.off_front_deg[chosen.cpu()]
        cameras = self.cameras and self.cameras[chosen.to(self.cameras.azimuth_deg.device)]
        gain = None if self.gain is None else self.gain[chosen]
        return replace(self, cameras=cameras, words=words, off_front_deg=off_front, gain=gain, **parts)

    def mirrored(self) -> TargetViews:
        """The views as a mirror in the plane of azimuth 0 shows them, which a symmetric subject has as well."""
        parts = {name: getattr(self, name).flip(-1) for name in ("images", "background", "masks")}
        cameras = replace(self.known_cameras, azimuth_deg=-self.known_cameras.azimuth_deg)
        return replace(self, cameras=cameras, **parts)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, views: int, pixels: int, generator: torch.Generator) -> tuple[Tensor, Tensor, TargetPixels]:
        """Random pixels of random views, without repetition (with, where only few of very many are drawn).

        Args:
            views: how many views; at most all of them are drawn.
            pixels: pixels per view; at most all of them are drawn.
            generator: source of randomness, on the CPU.

        Returns:
            ray origins (rays, 3), unit directions (rays, 3), and what is to be seen along them.
        """
        device, (height, width) = self.images.device, self.images.shape[-2:]
        chosen = torch.randperm(len(self), generator=generator)[:views].to(device, non_blocking=True)
        places = send(_draw_places(height * width, pixels, generator), device)
        origins, directions = (
            rays.flatten(1, 2)[:, places].reshape(-1, 3) for rays in self.known_cameras[chosen].rays(height, width)
        )

        def color_at(images: Tensor) -> Tensor:
            return images[chosen].flatten(2)[:, :, places].transpose(1, 2).reshape(-1, 3)

        mask = self.masks[chosen].flatten(1)[:, places].reshape(-1)
        trusted = self.trusted[chosen].repeat_interleave(len(places))
        gain = None if self.gain is None else self.gain[chosen].repeat_interleave(len(places))
        target = TargetPixels(color_at(self.images), color_at(self.background), mask, trusted, gain)
        return origins, directions, target


def _draw_places(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """(wanted,) places out of `count`; to shuffle a quarter of a million for a few thousand would take milliseconds."""
    if wanted * MANY < count:
        return torch.randint(count, (wanted,), generator=generator)
    return torch.randperm(count, generator=generator)[:wanted]
