"""From where does an asset look like a photo? A camera found by rendering and comparing, from many starts.

The photo is first turned towards its subject and widened to it (`photos.cameras.centred`), which is exact, given its
field of view. Then directions all around are compared, each at the distance and place in the frame that the outlines'
area and middle tell; the best of them are refined by Levenberg and Marquardt's method (Nocedal and Wright, "Numerical
Optimization", 10.3) in azimuth, elevation, roll, distance and place, at growing sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dreambooth3d.cameras import Cameras, PosedCameras, wrap_degrees
from dreambooth3d.photos.cameras.centred import CentredPhotos
from dreambooth3d.photos.cameras.placement import PlacedCameras, turn_photos
from dreambooth3d.representation.interface import Rendering, Representation

AZIMUTH_STEP_DEG = 10.0
ELEVATIONS_DEG = (-15.0, 5.0, 25.0, 50.0)
ELEVATION_LIMITS_DEG = (-60.0, 85.0)
FIRST_DISTANCE, FIRST_HALF_WIDTH = 2.75, 0.4
"""From where the whole unit ball is seen."""
DISTANCE_LIMITS = (1.3, 40.0)
GRID_SIZE = 32
SAMPLES_PER_RAY = 48
ROLLS_DEG = (-20.0, 0.0, 20.0)
TURNED_STARTS = 12
"""Starts that are tried at all rolls."""
ROUNDS = ((24, 12, 4), (48, 4, 5), (64, 1, 5))
"""Size of the compared images, number of candidates, steps."""
APART_DEG = 15.0
"""Candidates nearer to a better one than this, in azimuth and elevation, are left out."""
SILHOUETTE_WEIGHT = 0.5
"""Of the squared difference between opacity and mask, against that of colours."""
STEPS = (1.0, 1.0, 1.0, 0.01, 0.01, 0.01)
"""By which slopes are measured: degrees of azimuth, elevation and roll, logarithm of distance, halves of the frame."""
LONGEST = (12.0, 12.0, 12.0, 0.15, 0.15, 0.15)
DAMPING, LESS, MORE = 0.1, 0.3, 5.0
BLUR = 3
"""Width in pixels of the box by which both images are blurred, so that edges attract each other from afar."""


@dataclass(frozen=True)
class CentredPhoto:
    """A photo turned towards its subject, on white.

    Attributes:
        image: (3, size, size) in [0, 1].
        mask: (size, size) of the subject, in [0, 1].
        known: (size, size) 0 where a subject that the photo's frame cuts may go on, else 1.
        half_width: tangent of half the field of view.
    """

    image: Float[Tensor, "3 size size"]
    mask: Float[Tensor, "size size"]
    known: Float[Tensor, "size size"]
    half_width: float

    def resized(self, size: int) -> CentredPhoto:
        """The same at another size, antialiased."""
        whole = torch.cat([self.image, self.mask[None], self.known[None]])[None]
        small = torch.nn.functional.interpolate(whole, size=(size, size), mode="area")[0]
        return CentredPhoto(small[:3], small[3], small[4], self.half_width)

    def to(self, device: torch.device) -> CentredPhoto:
        """The same on another device."""
        return CentredPhoto(self.image.to(device), self.mask.to(device), self.known.to(device), self.half_width)


@dataclass(frozen=True)
class Registration:
    """A photo's camera on an asset.

    Attributes:
        placed: the camera of the centred photo; its centre is where the asset's origin is.
        error: squared difference of photo and render, in colour and outline, per pixel of the photo's subject.
    """

    placed: PlacedCameras
    error: float


def centred_photos(
    images: Float[Tensor, "n 3 height height"],
    masks: Float[Tensor, "n height height"],
    frames: Float[Tensor, "n height height"],
    cut: list[bool],
    fov_y_deg: Float[Tensor, " n"],
    size: int,
) -> list[CentredPhoto]:
    """Turn photos towards their subjects, and cut these out.

    Args:
        images: (n, 3, height, height) photos in [0, 1].
        masks: (n, height, height) of the subject, each with pixels above one half.
        frames: (n, height, height), 1 inside the photo and 0 in the padding.
        cut: whether the frame cuts each subject, so that nothing is known beyond it.
        fov_y_deg: (n,) of the photos.
        size: of the result.
    """
    centred = CentredPhotos.of(images, masks, fov_y_deg, size)
    inside, known = turn_photos(frames[:, None], fov_y_deg, centred.rotation, centred.half_width, size)
    known = torch.where(torch.tensor(cut)[:, None, None], ((inside[:, 0] * known) > 0.5).float(), 1.0)
    cut_out = centred.images * centred.masks[:, None] + 1 - centred.masks[:, None]
    widths = centred.half_width.tolist()
    return [CentredPhoto(*each) for each in zip(cut_out, centred.masks, known, widths, strict=True)]


def register(field: Representation, photo: CentredPhoto) -> Registration:
    """Find the camera from which a field looks the most like a photo; deterministic.

    Args:
        field: of the asset.
        photo: with pixels of the subject.
    """
    photo = photo.to(field.device)
    views = _Comparison(field, photo.resized(GRID_SIZE))
    poses = _starts(views)
    for size, count, steps in ROUNDS:
        views = _Comparison(field, photo.resized(size))
        poses = _best_apart(poses, views.errors(poses), count)
        poses = _refined(poses, views, steps)
    error = views.errors(poses)
    best = error.argmin()
    return Registration(_placed(poses[best][None], photo.half_width), error[best].item())


@torch.no_grad()
def render_placed(field: Representation, placed: PlacedCameras, size: int, samples_per_ray: int) -> Rendering:
    """(n, ...) an asset on white, from cameras that roll and look past the origin, which share a field of view."""
    pose = placed.cameras.camera_to_world
    pose[:, :3, :3] = pose[:, :3, :3] @ placed.to_upright.to(pose)
    return field.render(PosedCameras(pose, placed.cameras.fov_y_deg), size, samples_per_ray=samples_per_ray)


@dataclass(frozen=True)
class _Comparison:
    """Poses (n, 6) as `STEPS` lists them, compared with a photo of one size by rendering."""

    field: Representation
    photo: CentredPhoto

    def residuals(self, poses: Tensor) -> Tensor:
        """(n, values) blurred differences in colour and outline, whose sum of squares is the error."""
        rendering = _rendered(self.field, poses, self.photo)
        area = self.photo.mask.sum().clamp(min=1).sqrt()
        weight = SILHOUETTE_WEIGHT**0.5
        color = (rendering.color - self.photo.image) / 3**0.5
        outline = weight * (rendering.opacity - self.photo.mask)[:, None]
        both = torch.cat([color, outline], dim=1) * self.photo.known / area
        return avg_pool2d(both, BLUR, stride=1, padding=BLUR // 2).flatten(1)

    def errors(self, poses: Tensor) -> Tensor:
        """(n,) squared differences per pixel of the photo's subject."""
        return self.residuals(poses).square().sum(dim=1)


def _rendered(field: Representation, poses: Tensor, photo: CentredPhoto) -> Rendering:
    return render_placed(field, _placed(poses, photo.half_width), photo.mask.shape[-1], SAMPLES_PER_RAY)


def _placed(poses: Tensor, half_width: float) -> PlacedCameras:
    azimuth, elevation, roll, distance = poses[:, :4].unbind(-1)
    fov = torch.full_like(azimuth, math.degrees(2 * math.atan(half_width)))
    return PlacedCameras(Cameras(wrap_degrees(azimuth), elevation, distance.exp(), fov), roll, poses[:, 4:])


def _starts(views: _Comparison) -> Tensor:
    """(n, 6) poses from all around, the most similar ones at several rolls, that bring the outlines together."""
    device = views.photo.mask.device
    azimuth, elevation = torch.meshgrid(
        torch.arange(-180.0, 180.0, AZIMUTH_STEP_DEG), torch.tensor(ELEVATIONS_DEG), indexing="ij"
    )
    poses = torch.zeros(azimuth.numel(), 6, device=device)
    poses[:, 0], poses[:, 1], poses[:, 3] = azimuth.flatten(), elevation.flatten(), math.log(FIRST_DISTANCE)
    poses = _fitted(poses, views)
    best = poses[views.errors(poses).argsort()[:TURNED_STARTS]]
    turned = best.repeat_interleave(len(ROLLS_DEG), dim=0)
    turned[:, 2] = torch.tensor(ROLLS_DEG, device=device).repeat(len(best))
    return torch.cat([poses, _fitted(turned, views)])


def _fitted(poses: Tensor, views: _Comparison) -> Tensor:
    """The poses at the distances and places that bring the render's outline to the area and middle of the photo's."""
    photo = views.photo
    wide = replace(photo, half_width=FIRST_HALF_WIDTH)
    first = poses.clone()
    first[:, 3], first[:, 4:] = math.log(FIRST_DISTANCE), 0.0
    area, middle = _moments(_rendered(views.field, first, wide).opacity)
    wanted_area, wanted_middle = _moments(photo.mask[None])
    # In tangents, so that frames of different fields of view compare.
    growth = (wanted_area / area.clamp(min=1e-4)).sqrt() * photo.half_width / FIRST_HALF_WIDTH
    fitted = poses.clone()
    fitted[:, 3] = (FIRST_DISTANCE / growth).clamp(*DISTANCE_LIMITS).log()
    shown = middle * (growth * FIRST_HALF_WIDTH / photo.half_width)[:, None]
    fitted[:, 4:] = wanted_middle - shown
    return fitted


def _moments(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) share of the frame that masks (n, h, w) cover, and (n, 2) their middles, x to the right and y up."""
    size = masks.shape[-1]
    along = (torch.arange(size, device=masks.device) + 0.5) * 2 / size - 1
    total = masks.sum(dim=(1, 2)).clamp(min=1e-4)
    x = (masks.sum(dim=1) * along).sum(dim=1) / total
    y = -(masks.sum(dim=2) * along).sum(dim=1) / total
    return masks.mean(dim=(1, 2)), torch.stack([x, y], dim=-1)


def _best_apart(poses: Tensor, errors: Tensor, count: int) -> Tensor:
    """At most `count` poses by growing error, without those that lie near a better one."""
    directions = poses[:, :2].cpu()
    kept: list[int] = []
    for index in errors.argsort().tolist():
        turn, lift = (directions[index] - directions[kept]).unbind(-1)
        near = (wrap_degrees(turn).abs() < APART_DEG) & (lift.abs() < APART_DEG)
        if not near.any():
            kept.append(index)
        if len(kept) == count:
            break
    return poses[kept]


def _refined(poses: Tensor, views: _Comparison, steps: int) -> Tensor:
    """The poses (n, 6) after steps of Levenberg and Marquardt's method, each for itself."""
    scale, longest = (poses.new_tensor(values) for values in (STEPS, LONGEST))
    damping = poses.new_full((len(poses),), DAMPING)
    residuals = views.residuals(poses)
    for _ in range(steps):
        moved = (poses[:, None] + torch.diag(scale)).flatten(0, 1)
        slopes = views.residuals(moved).view(len(poses), len(scale), -1) - residuals[:, None]
        normal = slopes @ slopes.mT
        normal = normal + torch.diag_embed(damping[:, None] * normal.diagonal(dim1=1, dim2=2) + 1e-8)
        step = -torch.linalg.solve(normal, slopes @ residuals[..., None])[..., 0] * scale
        tried = _within_limits(poses + step.clamp(-longest, longest))
        new = views.residuals(tried)
        better = new.square().sum(1) < residuals.square().sum(1)
        poses = torch.where(better[:, None], tried, poses)
        residuals = torch.where(better[:, None], new, residuals)
        damping = damping * torch.where(better, LESS, MORE)
    return poses


def _within_limits(poses: Tensor) -> Tensor:
    low, high = (math.log(limit) for limit in DISTANCE_LIMITS)
    azimuth, elevation, roll, distance, x, y = poses.unbind(-1)
    return torch.stack([azimuth, elevation.clamp(*ELEVATION_LIMITS_DEG), roll, distance.clamp(low, high), x, y], dim=-1)
