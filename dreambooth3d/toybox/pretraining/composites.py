"""Photo sets for training, made on the device: views of a thing before photographs, as people take pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.photos.networks.relative_views import MARGIN
from dreambooth3d.photos.networks.subject_masks import outline_box
from dreambooth3d.toybox.pretraining.backdrops import Backdrops
from dreambooth3d.toybox.pretraining.draws import Draws, blurred, coarse, laid_over
from dreambooth3d.toybox.pretraining.view_sets import VIEWS, ViewSets

PHOTOS = 5
OTHER_THING_SHARE = 0.35
CLUTTER_SHARE = 0.25
"""Of sets in whose place another thing stands, to be seen in most of their photos, away from the middle."""
OCCLUDER_SHARE = 0.08
SHADOW_SHARE = 0.6
CONTACT_SHARE = 0.4
REFLECTED_SHARE = 0.08
PAINTED_SHARE = 0.15
DETAILED_SHARE = 0.5
PATCHED_SHARE = 0.2
PALE_SHARE = 0.2
LIKE_BACKGROUND_SHARE = 0.2
FURRY_SHARE = 0.3
BENT_SHARE = 0.4
JOINED_SHARE = 0.2
PARTLY_SHARP_SHARE = 0.12
PADDED_SHARE = 0.4
DARK_SHARE = 0.2
FUR = 0.045
"""Largest standard deviation of how far hair stands off an outline, in halves of the subject."""
BENT = 0.12
"""The same of how far parts of a subject move, as in another pose."""


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
        self.things, self.size = things, size
        self.device = backgrounds.device
        self.draws = Draws(self.device)
        self.backdrops = Backdrops(backgrounds, size, PHOTOS)
        identity = torch.eye(2, 3, device=self.device)[None]
        self.grid = F.affine_grid(identity, [1, 1, size, size], align_corners=False)

    @torch.no_grad()
    def compose(self, sets: int) -> PhotoSets:
        """Random photo sets of `PHOTOS` photos each."""
        count = sets * PHOTOS
        subject = self._subjects(sets)
        alpha = subject[:, 3:]
        feet = _feet(alpha)
        scenes = self.backdrops.of_sets(sets, feet)
        subject = torch.cat([self._like_background(subject, scenes), alpha], dim=1)
        scenes = self._with_others(scenes, OTHER_THING_SHARE)
        scenes = self._with_others(scenes, OTHER_THING_SHARE / 2)
        scenes = self._with_clutter(scenes, sets)
        scenes = self._with_reflections(scenes, subject, feet)
        scenes = self._with_shadows(scenes, alpha, feet)
        images = laid_over(scenes, self._partly_sharp(subject))
        occluder = self._layers(self._any_views(count), (0.1, 0.4), self._within(count, 0.9))
        occluder = occluder * self.draws.chance(count, OCCLUDER_SHARE)
        images = self._taken(laid_over(images, occluder))
        images, masks, frame = self._padded(images, (alpha * (1 - occluder[:, 3:]))[:, 0])
        shape = (sets, PHOTOS)
        return PhotoSets(images.unflatten(0, shape), masks.unflatten(0, shape), frame.unflatten(0, shape))

    def _any_views(self, count: int) -> Tensor:
        """(count, 4, s, s) views of random things."""
        thing = torch.randint(len(self.things), (count,), device=self.device)
        view = torch.randint(VIEWS, (count,), device=self.device)
        return self.things.layers[thing, view].float() / 255

    def _set_views(self, sets: int) -> Tensor:
        """(sets, n, 4, s, s) a random thing for each set, from different sides, perhaps recoloured."""
        thing = torch.randint(len(self.things), (sets, 1), device=self.device)
        view = self.draws.uniform(sets, VIEWS).argsort(dim=1)[:, :PHOTOS]
        return self._recoloured(self.things.layers[thing, view].float() / 255)

    def _subjects(self, sets: int) -> Tensor:
        """(sets * n, 4, size, size) each set's thing from different sides, somewhere in the frame."""
        layers = self._set_views(sets)
        layers = torch.where(self.draws.chance(sets, 0.5)[..., None] > 0, layers.flip(-1), layers)
        layers = self._joined(layers).flatten(0, 1)
        draws, count = self.draws, len(layers)
        strands = draws.strands(count, self.size)
        furry = _of_each(draws.amounts(sets, 0.15, 1.0) * draws.chance(sets, FURRY_SHARE))
        bent = draws.amounts(count) * _of_each(draws.chance(sets, BENT_SHARE))
        off = BENT * bent * draws.smooth(count, 2, 4, self.size) + FUR * furry * strands
        subject = self._layers(layers, (0.22, 1.2), self._within(count, 0.3), off)
        return self._surfaced(subject, furry * strands.mean(1, keepdim=True))

    def _surfaced(self, subject: Tensor, hair: Tensor) -> Tensor:
        """(sets * n, 4, size, size): patches, stuff and detail, as sharp as the photo.

        Views are rendered smaller than most subjects are seen, and most meshes have little texture: without this, what
        is smooth would be the subject, and what is sharp the background.

        Args:
            subject: as placed.
            hair: (sets * n, 1, size, size) light and dark strands; 0 where a subject has none.
        """
        draws, count, sets = self.draws, len(subject), len(subject) // PHOTOS
        rgb, alpha = subject[:, :3], subject[:, 3:]
        other = torch.einsum("nij,njhw->nihw", _of_each(self._mixtures(sets)), rgb)
        other = other * _of_each(draws.amounts(sets, 0.3, 2.0))
        patch = (8 * draws.smooth(count, 1, 5, self.size)).sigmoid()
        rgb = torch.lerp(rgb, other, patch * _of_each(draws.chance(sets, PATCHED_SHARE)))
        paper = self.backdrops.crops(count, True, (0.15, 0.6))
        painted = paper * rgb.mean(1, keepdim=True) * 1.7
        rgb = torch.where(_of_each(draws.chance(sets, PAINTED_SHARE)) > 0, painted, rgb)
        detail = _of_each(draws.amounts(sets, 0.2, 1.2) * draws.chance(sets, DETAILED_SHARE))
        rgb = rgb + alpha * detail * (paper - blurred(paper, 9))
        rgb = rgb * (1 + 0.25 * hair) * self._light(count)
        return torch.cat([torch.minimum(rgb.clamp(min=0), alpha), alpha], dim=1)

    def _light(self, count: int) -> Tensor:
        """(count, 1, size, size) brighter towards one side."""
        side = 0.5 * torch.randn(count, 1, 1, 2, device=self.device) * self.draws.chance(count, 0.5)
        return (side * self.grid).sum(-1)[:, None].exp()

    def _like_background(self, subject: Tensor, scenes: Tensor) -> Tensor:
        """(sets * n, 3, size, size) the subjects' colours, some moved to what is behind them in the set's photos."""
        draws, sets = self.draws, len(subject) // PHOTOS
        rgb, alpha = subject[:, :3], subject[:, 3:]

        def mean(colours: Tensor, weights: Tensor) -> Tensor:
            total, weight = (value.unflatten(0, (sets, PHOTOS)).sum((1, 3, 4)) for value in (colours, weights))
            return (total / weight.clamp(min=1))[..., None, None]

        off = mean(scenes * alpha, alpha) - mean(rgb, alpha)
        near = draws.amounts(sets, 0.4, 0.95) * draws.chance(sets, LIKE_BACKGROUND_SHARE)
        return torch.minimum((rgb + alpha * _of_each(near * off)).clamp(min=0), alpha)

    def _joined(self, layers: Tensor) -> Tensor:
        """(sets, n, 4, s, s): some subjects are two things that touch, of which either may hide the other's edge."""
        draws, sets, size = self.draws, len(layers), layers.shape[-1]
        angle = draws.between(sets, -math.pi, math.pi)
        apart = draws.between(sets, 0.3, 0.5)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        first = self._placed(layers, draws.between(sets, 0.35, 0.6), apart, size)
        second = self._placed(self._set_views(sets), draws.between(sets, 0.2, 0.6), -apart, size)
        both = first + second * (1 - first[:, :, 3:])
        return torch.where(draws.chance(sets, JOINED_SHARE)[..., None] > 0, both, layers)

    def _placed(self, layers: Tensor, half: Tensor, middle: Tensor, size: int) -> Tensor:
        """(sets, n, 4, size, size): outlines of half the longer side `half` (sets,) around `middle` (sets, 2)."""
        sets = len(layers)
        own, own_half = outline_box(layers.flatten(0, 1)[:, 3])
        scale = own_half / _of_each(half)
        theta = torch.zeros(sets * PHOTOS, 2, 3, device=self.device)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, :, 2] = own - scale[:, None] * _of_each(middle)
        grid = F.affine_grid(theta, [sets * PHOTOS, 4, size, size], align_corners=False)
        return F.grid_sample(layers.flatten(0, 1), grid, align_corners=False).unflatten(0, (sets, PHOTOS))

    def _mixtures(self, sets: int) -> Tensor:
        """(sets, 3, 3) other colours of the same lightness."""
        mix = torch.eye(3, device=self.device) + 0.5 * torch.randn(sets, 3, 3, device=self.device)
        return mix.abs() / mix.abs().sum(-1, keepdim=True)

    def _recoloured(self, layers: Tensor) -> Tensor:
        """(sets, n, 4, s, s): half of the sets with other colours, some pale."""
        draws, sets = self.draws, len(layers)
        rgb, alpha = layers[:, :, :3], layers[:, :, 3:]
        other = torch.einsum("sij,snjhw->snihw", self._mixtures(sets), rgb)
        rgb = torch.where(draws.chance(sets, 0.5)[..., None] > 0, other, rgb)
        pale = (rgb.mean(2, keepdim=True) * draws.between(sets, 1.0, 2.5).view(-1, 1, 1, 1, 1)).clamp(0, 1)
        pale = torch.lerp(rgb, torch.minimum(pale, alpha), draws.between(sets, 0.6, 1.0).view(-1, 1, 1, 1, 1))
        rgb = torch.where(draws.chance(sets, PALE_SHARE)[..., None] > 0, pale, rgb)
        return torch.cat([rgb, alpha], dim=2)

    def _within(self, count: int, reach: float) -> Tensor:
        """(count, 2) places at most so far from the middle in x and in y, in halves of the frame."""
        return (2 * self.draws.uniform(count, 2) - 1) * reach

    def _layers(self, layers: Tensor, half: tuple[float, float], places: Tensor, off: Tensor | None = None) -> Tensor:
        """(count, 4, size, size): turned, moved to places in the frame, edges softened.

        Args:
            layers: (count, 4, s, s).
            half: range of half of the longer side of their outlines' boxes, in halves of the frame.
            places: (count, 2) of their middles, x right, y down, in halves of the frame.
            off: (count, 2, size, size) displacement of each pixel, in the units that `half` has drawn.
        """
        draws, count = self.draws, len(layers)
        middle, own_half = outline_box(layers[:, 3])
        angle = draws.between(count, -0.25, 0.25)
        drawn = draws.between(count, *half)
        scale = drawn / own_half
        stretch = draws.between(count, -0.12, 0.12).exp()
        cos, sin = angle.cos() / scale, angle.sin() / scale
        turn = torch.stack([cos * stretch, -sin * stretch, sin / stretch, cos / stretch], dim=1).view(-1, 2, 2)
        seen = self.grid - places[:, None, None]
        if off is not None:
            seen = seen + drawn.view(-1, 1, 1, 1) * off.movedim(1, -1)
        grid = seen.flatten(1, 2) @ turn.transpose(1, 2) + middle[:, None]
        moved = F.grid_sample(layers, grid.unflatten(1, (self.size, self.size)), align_corners=False)
        return self._softened(moved, 0.6)

    def _softened(self, images: Tensor, most: float) -> Tensor:
        """Blurred a little, each by its own amount."""
        return torch.lerp(images, blurred(images, 3), self.draws.amounts(len(images), 0.0, most))

    def _partly_sharp(self, subject: Tensor) -> Tensor:
        """Some subjects out of focus towards one side."""
        draws, count = self.draws, len(subject)
        side = 2 * torch.randn(count, 1, 1, 2, device=self.device)
        amount = (side * self.grid).sum(-1)[:, None].clamp(0, 1) * draws.chance(count, PARTLY_SHARP_SHARE)
        return torch.lerp(subject, blurred(blurred(subject, 5), 3), amount)

    def _with_others(self, scenes: Tensor, share: float) -> Tensor:
        """Other things stand behind or beside the subject in some photos."""
        count = len(scenes)
        other = self._layers(self._any_views(count), (0.15, 0.7), self._within(count, 0.9))
        return laid_over(scenes, other * self.draws.chance(count, share))

    def _with_clutter(self, scenes: Tensor, sets: int) -> Tensor:
        """In the place of some sets stands another thing, near the rim of most of their photos."""
        draws, count = self.draws, len(scenes)
        layers = self._set_views(sets).flatten(0, 1)
        angle, far = draws.between(count, -math.pi, math.pi), draws.between(count, 0.6, 1.0)
        other = self._layers(layers, (0.15, 0.45), far[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1))
        shown = _of_each(draws.chance(sets, CLUTTER_SHARE)) * draws.chance(count, 0.8)
        return laid_over(scenes, other * shown)

    def _with_reflections(self, scenes: Tensor, subject: Tensor, feet: Tensor) -> Tensor:
        """The subject upside down below it, as on ice or a polished table."""
        draws, count = self.draws, len(scenes)
        one, zero = torch.ones_like(feet), torch.zeros_like(feet)
        ground = feet - draws.between(count, 0.0, 0.08)
        theta = torch.stack([one, zero, zero, zero, -one, 2 * ground], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [count, 4, self.size, self.size], align_corners=False)
        below = (self.backdrops.y > ground.view(-1, 1, 1, 1)).float()
        mirrored = blurred(F.grid_sample(subject, grid, align_corners=False), 3) * below
        strength = draws.amounts(count, 0.1, 0.6) * draws.chance(count, REFLECTED_SHARE)
        return laid_over(scenes, strength * mirrored)

    def _with_shadows(self, scenes: Tensor, alpha: Tensor, feet: Tensor) -> Tensor:
        """A flat copy of the subject's outline, soft or not, darkens what lies below it; so does its foot."""
        draws, count = self.draws, len(scenes)
        lean, flat = draws.between(count, -0.5, 0.5), draws.between(count, 0.15, 0.5)
        ground = feet - flat * 0.6 * draws.uniform(count)
        zero, one = torch.zeros_like(lean), torch.ones_like(lean)
        theta = torch.stack([one, lean, -lean * ground, zero, 1 / flat, -ground / flat], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [count, 1, self.size, self.size], align_corners=False)
        shadow = F.grid_sample(alpha, grid, align_corners=False)
        shadow = torch.lerp(blurred(blurred(shadow, 9), 9), blurred(shadow, 5), draws.amounts(count))
        strength = draws.amounts(count, 0.1, 0.7) * draws.chance(count, SHADOW_SHARE)
        low = (self.backdrops.y > feet.view(-1, 1, 1, 1) - draws.amounts(count, 0.1, 0.5)).float()
        contact = blurred(blurred(alpha * low, 7), 5)
        touched = draws.amounts(count, 0.3, 1.0) * draws.chance(count, CONTACT_SHARE)
        return scenes * (1 - strength * shadow) * (1 - touched * contact)

    def _taken(self, images: Tensor) -> Tensor:
        """As a phone's camera renders it: exposure, white balance, contrast, blur and noise."""
        draws, count = self.draws, len(images)
        gain = draws.amounts(count, 0.75, 1.25) * (0.9 + 0.2 * draws.colours(count))
        dark = _of_each(draws.amounts(count // PHOTOS, 0.0, 0.8) * draws.chance(count // PHOTOS, DARK_SHARE))
        gamma = (draws.amounts(count, -0.25, 0.25) + dark).exp()
        images = self._softened((images * gain).clamp(0, 1) ** gamma, 0.9)
        images = torch.lerp(images, coarse(images, 2), draws.amounts(count) * draws.chance(count, 0.2))
        grey = images.mean(1, keepdim=True)
        chroma = F.interpolate(F.avg_pool2d(images - grey, 2), scale_factor=2.0)
        images = torch.where(draws.chance(count, 0.5) > 0, grey + chroma, images)
        noise = 0.04 * draws.amounts(count).square()
        return (images + noise * torch.randn_like(images)).clamp(0, 1)

    def _padded(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Some photos are not square: bars of their border's colour, on both sides."""
        draws, count = self.draws, len(images)
        bar = draws.between(count, 0.0, 0.3) * draws.chance(count, PADDED_SHARE).flatten()
        place = torch.linspace(-1, 1, self.size, device=self.device).abs()
        inside = (place[None] <= 1 - bar[:, None]).float()
        wide = draws.chance(count, 0.5)[..., 0]
        frame = wide * inside[:, :, None] + (1 - wide) * inside[:, None]
        colour = images.mean((2, 3), keepdim=True)
        images = images * frame[:, None] + colour * (1 - frame[:, None])
        return images, masks * frame, frame


def _of_each(values: Tensor) -> Tensor:
    """Values of sets, for each of their photos."""
    return values.repeat_interleave(PHOTOS, 0)


def _feet(alpha: Float[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """Where the lowest pixel of each outline is, from -1 at the top of the frame to 1."""
    rows = torch.linspace(-1, 1, alpha.shape[2], device=alpha.device)
    return torch.where(alpha.amax((1, 3)) > 0.5, rows, -1.0).amax(1)


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
