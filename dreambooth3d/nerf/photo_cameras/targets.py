"""Views that an asset is to reproduce: their pixels, what lies behind the subject, and where the subject is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from dreambooth3d.artifacts import PseudoViews, SubjectPhotos
from dreambooth3d.backdrops import FINE_SIZE, MAX_CUT_OUTLINE
from dreambooth3d.cameras import Cameras
from dreambooth3d.masks import smooth_background, subject_masks, unsure_regions
from dreambooth3d.photos.cameras.placement import (
    PlacedCameras,
    fitting_fov_y_deg,
    placed_cameras,
    rectify,
    towards_subjects,
)
from dreambooth3d.representation.interface import ViewPixels
from dreambooth3d.transfer import send

MANY = 16
PLAIN_LEVELS = (0.1, 0.9)
"""Of each channel of the colours before which subjects are put."""
WHOLE = 0.999
"""Share of a pixel that must be inside the frame."""


@dataclass(frozen=True)
class TargetPixels:
    """Pixels of target views.

    Attributes:
        color: (pixels, 3) in [0, 1].
        background: (pixels, 3) what would be seen there without the subject.
        mask: (pixels,) 1 on the subject, else 0.
        trusted: (pixels,) 1 where the mask can be trusted, else 0.
        known: (pixels,) weight in [0, 1], 0 where nothing is known, or None for 1.
        gain: (pixels,) factor on the subject's colour there, or None for 1.
    """

    color: Tensor
    background: Tensor
    mask: Tensor
    trusted: Tensor
    gain: Tensor | None = None
    known: Tensor | None = None

    def before(self, colors: Tensor) -> TargetPixels:
        """The same with the subject before other colours (pixels, 3), where its mask can be trusted.

        Before its own background alone, a part of the subject that has the background's colour may just as well be
        missing.
        """
        moved = self.trusted[:, None] * (colors - self.background)
        color = self.color + (1 - self.mask)[:, None] * moved
        return replace(self, color=color, background=self.background + moved)


@dataclass(frozen=True)
class TargetViews:
    """Views that a field is compared with.

    Attributes:
        images: (n, 3, height, width) in [0, 1].
        cameras: the n cameras, of photos as they tell them (NaN where they do not); None while they are unknown.
        background: (n, 3, height, width) what lies behind the subject: the smooth background of each, or the colour
            before which it was put.
        masks: (n, height, width) of the subject, in [0, 1].
        trusted: (n,) whether each mask can be trusted, 1 or 0.
        words: the n view words as a scorer sees them, or nothing.
        off_front_deg: (n,) angle between camera and front in [0, 180], as a scorer estimates it, or None.
        gain: (n,) exposure of each view as a factor on the subject's colour, or None for 1.
        known: (n, height, width) in [0, 1], 0 where nothing is known, as beyond the frame that cuts a subject; None for
            1.
    """

    images: Tensor
    cameras: Cameras | None
    background: Tensor
    masks: Tensor
    trusted: Tensor
    words: tuple[str, ...] = ()
    off_front_deg: Tensor | None = None
    gain: Tensor | None = None
    known: Tensor | None = None

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
        if not photos.trusted.any():
            return None
        off_front = torch.tensor(photos.off_front_deg) if photos.off_front_deg else None
        placed = placed_cameras(photos)
        if placed is not None and placed[photos.trusted].upright:
            placed = None
        fine_size = size if placed is None else FINE_SIZE
        images, background = _with_known_backgrounds(photos, fine_size)
        cut = _cut(photos)
        known = _known(photos, fine_size, cut)
        views = TargetViews(
            images.to(device),
            photos.cameras,
            background.to(device),
            photos.masks_resized(fine_size).to(device),
            photos.trusted.float().to(device),
            words=photos.views,
            off_front_deg=off_front,
            known=None if known is None else known.to(device),
        )
        chosen = views.where(views.trusted > 0)
        if placed is None:
            return chosen
        return chosen.rectified(placed[photos.trusted], size, cut[photos.trusted])

    def rectified(self, placed: PlacedCameras, size: int, cut: Tensor) -> TargetViews:
        """The views as upright cameras that look at the subject's centre would show them, `size` pixels wide.

        Of cameras whose place is unknown (NaN), only the direction of the subject is used. Beyond the frames of those
        views that are `cut` (n,) bool nothing is known; beyond the others there is nothing of the subject. What is not
        known stays so.
        """
        masks = self.masks.cpu()
        unknown = placed.cameras.azimuth_deg.isnan()
        frames = placed.where_known(towards_subjects(masks, placed.cameras.fov_y_deg))
        fov_y_deg = fitting_fov_y_deg(masks, frames)
        told = torch.ones_like(self.masks) if self.known is None else self.known
        layers = torch.cat([self.images, self.background, self.masks[:, None], told[:, None]], dim=1)
        turned, share = rectify(layers, frames, fov_y_deg, size)
        images, background, seen, told = turned.split([3, 3, 1, 1], dim=1)
        inside = share[:, None]
        told = (told * inside)[:, 0]
        told = torch.where(cut.to(told.device)[:, None, None], told, told + 1 - share)
        known = None if self.known is None else (told >= WHOLE).float()
        full = torch.full_like(placed.cameras.fov_y_deg, fov_y_deg)
        cameras = replace(placed.cameras, fov_y_deg=full.masked_fill(unknown, math.nan))
        return replace(
            self,
            images=torch.lerp(background, images, inside),
            background=background,
            masks=seen[:, 0] * share,
            cameras=cameras,
            known=known,
        )

    def where(self, chosen: Tensor) -> TargetViews:
        """The chosen (n,) bool of the views."""
        parts = {name: getattr(self, name)[chosen] for name in ("images", "background", "masks", "trusted")}
        words = tuple(word for word, kept in zip(self.words, chosen.tolist(), strict=False) if kept)
        off_front = None if self.off_front_deg is None else self.off_front_deg[chosen.cpu()]
        cameras = self.cameras and self.cameras[chosen.to(self.cameras.azimuth_deg.device)]
        gain, known = (None if values is None else values[chosen] for values in (self.gain, self.known))
        return replace(self, cameras=cameras, words=words, off_front_deg=off_front, gain=gain, known=known, **parts)

    def mirrored(self) -> TargetViews:
        """The views as a mirror in the plane of azimuth 0 shows them, which a symmetric subject has as well."""
        parts = {name: getattr(self, name).flip(-1) for name in ("images", "background", "masks")}
        cameras = replace(self.known_cameras, azimuth_deg=-self.known_cameras.azimuth_deg)
        known = None if self.known is None else self.known.flip(-1)
        return replace(self, cameras=cameras, known=known, **parts)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, views: int, pixels: int, generator: torch.Generator) -> tuple[ViewPixels, TargetPixels]:
        """Random pixels of random views, without repetition (with, where only few of very many are drawn).

        Args:
            views: how many views; at most all of them are drawn.
            pixels: pixels per view; at most all of them are drawn.
            generator: source of randomness, on the CPU.

        Returns:
            the pixels, and what is to be seen there.
        """
        device, (height, width) = self.images.device, self.images.shape[-2:]
        chosen = torch.randperm(len(self), generator=generator)[:views].to(device, non_blocking=True)
        places = send(_draw_places(height * width, pixels, generator), device)
        drawn = ViewPixels.of(self.known_cameras[chosen], height, width, places)

        def color_at(images: Tensor) -> Tensor:
            return images[chosen].flatten(2)[:, :, places].transpose(1, 2).reshape(-1, 3)

        def value_at(values: Tensor) -> Tensor:
            return values[chosen].flatten(1)[:, places].reshape(-1)

        known = None if self.known is None else value_at(self.known)
        trusted = self.trusted[chosen].repeat_interleave(len(places))
        gain = None if self.gain is None else self.gain[chosen].repeat_interleave(len(places))
        target = TargetPixels(
            color_at(self.images), color_at(self.background), value_at(self.masks), trusted, gain, known
        )
        return drawn, target


def _with_known_backgrounds(photos: SubjectPhotos, size: int) -> tuple[Tensor, Tensor]:
    """The photos (n, 3, size, size) with what lies behind their subjects: known where it is smooth, else put there.

    A background that is not smooth would have to be learned. A plain colour far from the subject's takes its place.
    """
    smooth = photos.before_smooth_background[:, None, None, None]
    images = photos.resized(size)
    behind = interpolate(smooth_background(photos.resized(FINE_SIZE)), size=(size, size), mode="area")
    if smooth.all():
        return images, behind
    plain = far_color(images, photos.masks_resized(size) * photos.trusted[:, None, None])[:, None, None]
    # At the photos' own size, so that little of what lay behind stays on the outline; averaged as the masks are.
    composed = torch.cat(
        [
            interpolate((image * mask + plain * (1 - mask))[None], size=(size, size), mode="area")
            for image, mask in zip(photos.images, photos.masks, strict=True)
        ]
    )
    return torch.where(smooth, images, composed), torch.where(smooth, behind, plain.expand_as(behind))


def far_color(images: Tensor, masks: Tensor) -> Tensor:
    """(3,): of a few plain colours the one farthest from the mean of images (n, 3, h, w) under masks (n, h, w)."""
    weight = masks[:, None]
    mean = (images * weight).sum(dim=(0, 2, 3)) / weight.sum().clamp(min=1e-6)
    colors = torch.cartesian_prod(*[mean.new_tensor(PLAIN_LEVELS)] * 3)
    return colors[(colors - mean).norm(dim=1).argmax()]


def _cut(photos: SubjectPhotos) -> Tensor:
    """(n,) bool: the frame cuts the subject."""
    return (photos.cut > MAX_CUT_OUTLINE) & ~photos.before_smooth_background


def _known(photos: SubjectPhotos, size: int, cut: Tensor) -> Tensor | None:
    """(n, size, size): 0 beyond the frame of the photos that are `cut` (n,) bool, and where masks are unsure.

    None where all is known.
    """
    masks, frame = photos.masks_resized(FINE_SIZE), photos.frame(size) >= WHOLE
    unsure = unsure_regions(masks) & ~photos.before_smooth_background[:, None, None]
    if not (cut.any() or unsure.any()):
        return None
    sure = adaptive_avg_pool2d((~unsure).float(), size) >= WHOLE
    return (sure & (frame | ~cut[:, None, None])).float()


def _draw_places(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """(wanted,) places out of `count`; to shuffle a quarter of a million for a few thousand would take milliseconds."""
    if wanted * MANY < count:
        return torch.randint(count, (wanted,), generator=generator)
    return torch.randperm(count, generator=generator)[:wanted]
