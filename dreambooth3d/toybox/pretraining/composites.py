"""Photo sets for training, made on the device: views of a thing before photographs, as people take pictures.

All random numbers are drawn on the device, so that a batch costs no time of the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.photos.networks.relative_views import MARGIN
from dreambooth3d.photos.networks.subject_masks import outline_box
from dreambooth3d.toybox.pretraining.view_sets import VIEWS, ViewSets

PHOTOS = 5
PLAIN_SHARE = 0.2
SAME_PLACE_SHARE = 0.5
OTHER_THING_SHARE = 0.35
OCCLUDER_SHARE = 0.08
SHADOW_SHARE = 0.6
PAINTED_SHARE = 0.15
PALE_SHARE = 0.2
JOINED_SHARE = 0.2
PADDED_SHARE = 0.4


@dataclass(frozen=True)
class PhotoSets:
    """Composed photos (sets, n, 3, size, size) in [0, 1], true masks and frames (sets, n, size, size)."""

    images: Tensor
    masks: Tensor
    frame: Tensor


class Composer:
    """Composes photo sets.

    Args:
        things: what may be the subject, and what may stand beside it.
        backgrounds: (k, 3, height, width) photographs and textures.
        size: of the photos, in pixels.
    """

    def __init__(self, things: ViewSets, backgrounds: UInt8[Tensor, "k 3 height width"], size: int) -> None:
        self.things, self.backgrounds, self.size = things, backgrounds, size
        self.device = backgrounds.device

    @torch.no_grad()
    def compose(self, sets: int) -> PhotoSets:
        """Random photo sets of `PHOTOS` photos each."""
        count = sets * PHOTOS
        subject = self._subjects(sets)
        scenes = self._scenes(sets)
        scenes = self._with_others(scenes, OTHER_THING_SHARE)
        scenes = self._with_others(scenes, OTHER_THING_SHARE / 2)
        scenes = self._with_shadows(scenes, subject[:, 3:])
        images = scenes * (1 - subject[:, 3:]) + subject[:, :3]
        masks = subject[:, 3]
        occluder = self._layers(self._any_views(count), half=(0.1, 0.4), reach=0.9)
        occluder = occluder * self._chance(count, OCCLUDER_SHARE)
        images = images * (1 - occluder[:, 3:]) + occluder[:, :3]
        masks = masks * (1 - occluder[:, 3])
        images = self._taken(images)
        images, masks, frame = self._padded(images, masks)
        shape = (sets, PHOTOS)
        return PhotoSets(images.unflatten(0, shape), masks.unflatten(0, shape), frame.unflatten(0, shape))

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.device)

    def _between(self, count: int, low: float, high: float) -> Tensor:
        return low + (high - low) * self._rand(count)

    def _chance(self, count: int, share: float) -> Tensor:
        """(count, 1, 1, 1) 1 with this probability, else 0."""
        return (self._rand(count) < share).float().view(-1, 1, 1, 1)

    def _any_views(self, count: int) -> Tensor:
        """(count, 4, s, s) views of random things."""
        thing = torch.randint(len(self.things), (count,), device=self.device)
        view = torch.randint(VIEWS, (count,), device=self.device)
        return self.things.layers[thing, view].float() / 255

    def _subjects(self, sets: int) -> Tensor:
        """(sets * n, 4, size, size) each set's thing from different sides, somewhere in the frame."""
        thing = torch.randint(len(self.things), (sets, 1), device=self.device)
        view = self._rand(sets, VIEWS).argsort(dim=1)[:, :PHOTOS]
        layers = self.things.layers[thing, view].float() / 255
        layers = torch.where(self._chance(sets, 0.5)[..., None] > 0, layers.flip(-1), layers)
        layers = self._joined(self._recoloured(layers)).flatten(0, 1)
        return self._layers(layers, half=(0.25, 1.05), reach=0.25)

    def _joined(self, layers: Tensor) -> Tensor:
        """(sets, n, 4, s, s): some subjects are two things that touch, of which either may hide the other's edge."""
        sets, size = len(layers), layers.shape[-1]
        thing = torch.randint(len(self.things), (sets, 1), device=self.device)
        view = self._rand(sets, VIEWS).argsort(dim=1)[:, :PHOTOS]
        other = self._recoloured(self.things.layers[thing, view].float() / 255)
        angle = self._between(sets, -math.pi, math.pi)
        apart = self._between(sets, 0.3, 0.5)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        first = self._placed(layers, self._between(sets, 0.35, 0.6), apart, size)
        second = self._placed(other, self._between(sets, 0.2, 0.6), -apart, size)
        both = first + second * (1 - first[:, :, 3:])
        return torch.where(self._chance(sets, JOINED_SHARE)[..., None] > 0, both, layers)

    def _placed(self, layers: Tensor, half: Tensor, middle: Tensor, size: int) -> Tensor:
        """(sets, n, 4, size, size): outlines of half the longer side `half` (sets,) around `middle` (sets, 2)."""
        sets = len(layers)
        own, own_half = outline_box(layers.flatten(0, 1)[:, 3])
        scale = own_half / half.repeat_interleave(PHOTOS)
        theta = torch.zeros(sets * PHOTOS, 2, 3, device=self.device)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, :, 2] = own - scale[:, None] * middle.repeat_interleave(PHOTOS, 0)
        grid = F.affine_grid(theta, [sets * PHOTOS, 4, size, size], align_corners=False)
        return F.grid_sample(layers.flatten(0, 1), grid, align_corners=False).unflatten(0, (sets, PHOTOS))

    def _recoloured(self, layers: Tensor) -> Tensor:
        """(sets, n, 4, s, s): half of the sets with other colours, some painted with a photograph, some pale."""
        sets = len(layers)
        rgb, alpha = layers[:, :, :3], layers[:, :, 3:]
        mix = torch.eye(3, device=self.device) + 0.5 * torch.randn(sets, 3, 3, device=self.device)
        mix = mix.abs() / mix.abs().sum(-1, keepdim=True)
        other = torch.einsum("sij,snjhw->snihw", mix, rgb)
        rgb = torch.where(self._chance(sets, 0.5)[..., None] > 0, other, rgb)
        paper = self._crops(sets * PHOTOS, same=True, size=rgb.shape[-1], zoom=(0.2, 0.6)).unflatten(0, (sets, PHOTOS))
        light = rgb.mean(2, keepdim=True)
        painted = (paper * light * 1.7).clamp(0, 1) * (alpha > 0)
        rgb = torch.where(self._chance(sets, PAINTED_SHARE)[..., None] > 0, torch.minimum(painted, alpha), rgb)
        pale = (rgb.mean(2, keepdim=True) * self._between(sets, 1.0, 2.5).view(-1, 1, 1, 1, 1)).clamp(0, 1)
        pale = torch.lerp(rgb, torch.minimum(pale, alpha), self._between(sets, 0.6, 1.0).view(-1, 1, 1, 1, 1))
        rgb = torch.where(self._chance(sets, PALE_SHARE)[..., None] > 0, pale, rgb)
        return torch.cat([rgb, alpha], dim=2)

    def _layers(self, layers: Tensor, half: tuple[float, float], reach: float) -> Tensor:
        """(count, 4, size, size): turned, moved by up to `reach` halves of the frame, edges softened.

        `half` is the range of half of the longer side of their outlines' boxes, in halves of the frame.
        """
        count = len(layers)
        middle, own_half = outline_box(layers[:, 3])
        angle = self._between(count, -0.25, 0.25)
        scale = self._between(count, *half) / own_half
        stretch = self._between(count, -0.12, 0.12).exp()
        cos, sin = angle.cos() / scale, angle.sin() / scale
        shift = (2 * self._rand(count, 2) - 1) * reach
        turn = torch.stack([cos * stretch, -sin * stretch, sin / stretch, cos / stretch], dim=1).view(-1, 2, 2)
        theta = torch.cat([turn, middle[..., None] - turn @ shift[..., None]], dim=2)
        grid = F.affine_grid(theta, [count, 4, self.size, self.size], align_corners=False)
        moved = F.grid_sample(layers, grid, align_corners=False)
        return self._softened(moved, 0.6)

    def _softened(self, images: Tensor, most: float) -> Tensor:
        """Blurred a little, each by its own amount."""
        amount = most * self._rand(len(images)).view(-1, 1, 1, 1)
        return torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), amount)

    def _crops(self, count: int, same: bool, size: int, zoom: tuple[float, float]) -> Tensor:
        """(count, 3, size, size) cut from backgrounds; `same` takes one background for all photos of a set."""
        chosen = torch.randint(len(self.backgrounds), (count,), device=self.device)
        if same:
            first = chosen.view(-1, PHOTOS)[:, :1].expand(-1, PHOTOS).reshape(-1)
            chosen = first
        scale = self._between(count, *zoom)
        angle = self._between(count, -0.2, 0.2)
        flip = 1 - 2 * (self._rand(count) < 0.5).float()
        shift = (2 * self._rand(count, 2) - 1) * (1 - scale)[:, None].clamp(min=0)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        theta = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
        pictures = self.backgrounds[chosen].float() / 255
        return F.grid_sample(pictures, grid, align_corners=False, padding_mode="reflection")

    def _scenes(self, sets: int) -> Tensor:
        """(sets * n, 3, size, size) what is behind the subject: one place or several, sharp or not, or a wall."""
        count = sets * PHOTOS
        places = self._crops(count, False, self.size, (0.3, 1.0))
        place = self._crops(count, True, self.size, (0.3, 0.9))
        same = self._chance(sets, SAME_PLACE_SHARE).repeat_interleave(PHOTOS, 0)
        scenes = same * place + (1 - same) * places
        small = F.interpolate(F.avg_pool2d(scenes, 8), size=self.size, mode="bilinear", align_corners=False)
        scenes = torch.lerp(scenes, small, self._rand(count).view(-1, 1, 1, 1) * self._chance(count, 0.4))
        # As soft as a subject that was rendered at a smaller size, so that sharpness does not tell the two apart.
        soft = F.interpolate(F.avg_pool2d(scenes, 2), size=self.size, mode="bilinear", align_corners=False)
        scenes = torch.lerp(scenes, soft, self._rand(count).view(-1, 1, 1, 1))
        plain = self._chance(sets, PLAIN_SHARE).repeat_interleave(PHOTOS, 0)
        return plain * self._walls(count) + (1 - plain) * scenes

    def _walls(self, count: int) -> Tensor:
        """(count, 3, size, size) colours that change evenly, half of them with a floor of another colour."""
        y = torch.linspace(0, 1, self.size, device=self.device).view(1, 1, -1, 1)
        x = torch.linspace(-0.5, 0.5, self.size, device=self.device).view(1, 1, 1, -1)
        top, bottom, across = (self._rand(count, 3, 1, 1) for _ in range(3))
        edge = self._between(count, 0.3, 0.9).view(-1, 1, 1, 1)
        floor = (y > edge).float() * self._chance(count, 0.5)
        even = torch.lerp(top, bottom, 0.4 * y) + 0.15 * (across - 0.5) * x
        return (even * (1 - floor) + bottom * floor).clamp(0, 1)

    def _with_others(self, scenes: Tensor, share: float) -> Tensor:
        """Other things stand behind or beside the subject in some photos."""
        count = len(scenes)
        other = self._layers(self._any_views(count), half=(0.15, 0.7), reach=0.9) * self._chance(count, share)
        return scenes * (1 - other[:, 3:]) + other[:, :3]

    def _with_shadows(self, scenes: Tensor, alpha: Tensor) -> Tensor:
        """A flat, soft copy of the subject's outline darkens what lies below it."""
        count = len(scenes)
        lean, flat = self._between(count, -0.5, 0.5), self._between(count, 0.15, 0.5)
        low = (alpha.amax(3)[:, 0] > 0.5).float() * torch.linspace(-1, 1, self.size, device=self.device)
        ground = low.amax(1) - flat * 0.6 * self._rand(count)
        zero, one = torch.zeros_like(lean), torch.ones_like(lean)
        theta = torch.stack([one, lean, -lean * ground, zero, 1 / flat, -ground / flat], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [count, 1, self.size, self.size], align_corners=False)
        shadow = F.grid_sample(alpha, grid, align_corners=False)
        blurred = F.avg_pool2d(F.avg_pool2d(shadow, 9, 1, 4), 9, 1, 4)
        sharp = self._rand(count).view(-1, 1, 1, 1)
        shadow = torch.lerp(blurred, F.avg_pool2d(shadow, 5, 1, 2), sharp)
        strength = self._between(count, 0.1, 0.7).view(-1, 1, 1, 1) * self._chance(count, SHADOW_SHARE)
        return scenes * (1 - strength * shadow)

    def _taken(self, images: Tensor) -> Tensor:
        """As a phone's camera renders it: exposure, white balance, contrast, blur and noise."""
        count = len(images)
        gain = self._between(count, 0.75, 1.25).view(-1, 1, 1, 1) * (0.9 + 0.2 * self._rand(count, 3, 1, 1))
        images = (images * gain).clamp(0, 1) ** self._between(count, -0.25, 0.25).exp().view(-1, 1, 1, 1)
        images = self._softened(images, 0.9)
        grey = images.mean(1, keepdim=True)
        chroma = F.interpolate(F.avg_pool2d(images - grey, 2), scale_factor=2.0)
        images = torch.where(self._chance(count, 0.5) > 0, grey + chroma, images)
        noise = 0.04 * self._rand(count).square().view(-1, 1, 1, 1)
        return (images + noise * torch.randn_like(images)).clamp(0, 1)

    def _padded(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Some photos are not square: bars of their border's colour, on both sides."""
        count = len(images)
        bar = self._between(count, 0.0, 0.3) * self._chance(count, PADDED_SHARE).flatten()
        place = torch.linspace(-1, 1, self.size, device=self.device).abs()
        inside = (place[None] <= 1 - bar[:, None]).float()
        wide = self._chance(count, 0.5)
        frame = wide[..., 0] * inside[:, :, None] + (1 - wide[..., 0]) * inside[:, None]
        colour = images.mean((2, 3), keepdim=True)
        images = images * frame[:, None] + colour * (1 - frame[:, None])
        return images, masks * frame, frame


def cutouts(
    things: ViewSets, sets: int, size: int
) -> tuple[Float[Tensor, "sets n 4 size size"], Float[Tensor, "sets n"], Float[Tensor, "sets n"], Tensor]:
    """Random sets of a thing's views as found masks would cut them out, with their cameras.

    Returns:
        cut-outs (colours times mask, mask), azimuths and elevations in degrees, and (sets,) whether the azimuths count
        from the thing's front.
    """
    device = things.layers.device
    thing = torch.randint(len(things), (sets, 1), device=device)
    view = torch.rand(sets, VIEWS, device=device).argsort(dim=1)[:, :PHOTOS]
    layers = things.layers[thing, view].float() / 255
    azimuth, elevation = things.azimuth_deg[thing, view], things.elevation_deg[thing, view]
    mirror = torch.rand(sets, 1, device=device) < 0.5
    layers = torch.where(mirror[..., None, None, None], layers.flip(-1), layers)
    azimuth = torch.where(mirror, -azimuth, azimuth)
    mix = torch.eye(3, device=device) + 0.4 * torch.randn(sets, 3, 3, device=device)
    mix = mix.abs() / mix.abs().sum(-1, keepdim=True)
    other = torch.einsum("sij,snjhw->snihw", mix, layers[:, :, :3])
    keep = torch.rand(sets, 1, 1, 1, 1, device=device) < 0.5
    colour = torch.where(keep, layers[:, :, :3], other)
    gain = 0.75 + 0.5 * torch.rand(sets, PHOTOS, 1, 1, 1, device=device)
    gain = gain * (0.92 + 0.16 * torch.rand(sets, PHOTOS, 3, 1, 1, device=device))
    layers = torch.cat([(colour * gain).clamp(0, 1), layers[:, :, 3:]], dim=2).flatten(0, 1)
    return (
        _roughly_centred(layers, size).unflatten(0, (sets, PHOTOS)),
        azimuth,
        elevation,
        things.heading_known[thing[:, 0]],
    )


def _hidden_part(count: int, size: int, device: torch.device) -> Tensor:
    """(count, 1, size, size) 0 in a rectangle of a third of the pictures, as where a mask misses a part, else 1."""
    place = torch.linspace(-1, 1, size, device=device)
    middle, half = 2 * torch.rand(count, 2, device=device) - 1, 0.05 + 0.3 * torch.rand(count, 2, device=device)
    inside = (place[None, None] - middle[..., None]).abs() <= half[..., None]
    hidden = inside[:, 1, :, None] & inside[:, 0, None, :] & (torch.rand(count, 1, 1, device=device) < 0.33)
    return (~hidden)[:, None].float()


def _roughly_centred(layers: Float[Tensor, "n 4 h w"], size: int) -> Float[Tensor, "n 4 {size} {size}"]:
    """Cut-outs of layers, as `relative_views.centred_cutouts` makes them of photos.

    But a little off, turned by some degrees, and with outlines as a doubtful mask has them.
    """
    device, count = layers.device, len(layers)
    middle, half = outline_box(layers[:, 3])
    half = MARGIN * half
    middle = middle + 0.06 * half[:, None] * torch.randn(count, 2, device=device)
    half = half * (0.06 * torch.randn(count, device=device)).exp()
    angle = math.radians(7) * torch.randn(count, device=device)
    cos, sin = angle.cos() * half, angle.sin() * half
    stretch = (0.1 * torch.randn(count, device=device)).exp()
    theta = torch.stack(
        [cos * stretch, -sin * stretch, middle[:, 0], sin / stretch, cos / stretch, middle[:, 1]], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, [count, 4, size, size], align_corners=False)
    moved = F.grid_sample(layers, grid, align_corners=False)
    moved = torch.lerp(moved, F.avg_pool2d(moved, 3, 1, 1), torch.rand(count, 1, 1, 1, device=device))
    moved = moved * _hidden_part(count, size, device)
    alpha = moved[:, 3:]
    grown, shrunk = F.max_pool2d(alpha, 3, 1, 1), -F.max_pool2d(-alpha, 3, 1, 1)
    kind = torch.rand(count, 1, 1, 1, device=device)
    rough = torch.where(kind < 0.2, grown, torch.where(kind < 0.5, shrunk, alpha))
    return torch.cat([torch.minimum(moved[:, :3], rough), rough], dim=1)
