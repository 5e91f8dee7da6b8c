"""How well do silhouettes, and colours, of photos fit together for given cameras? For many sets of cameras at once.

A point of the subject lies inside every silhouette. So each pixel of a silhouette needs a point along its ray that all
other photos see inside theirs; with wrong cameras there is none (silhouette coherence: Hernandez, Schmitt and Cipolla,
"Silhouette Coherence for Camera Calibration under Circular Motion", PAMI 2007). Photos from similar directions show the
first such point in similar colours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, normalize

from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.photos.cameras.centred import CentredPhotos

UNKNOWNS = ("azimuth_deg", "elevation_deg", "roll_deg", "yaw_deg", "pitch_deg", "log_distance")
"""What a set of cameras is, in this order: (6, sets, n). Yaw and pitch turn from the middle of the subject's box to its
centre; the distance is relative to a first guess."""
REACH = 1.15
"""Of the subject around its centre, in terms of its radius in the photos."""
ELEVATION_DEG, ELEVATION_SPREAD_DEG = 18.0, 12.0
ROLL_SPREAD_DEG, OFF_CENTRE_SPREAD_DEG = 5.0, 2.5
DISTANCE_SPREAD = 0.1
HEIGHT_SHARE = 0.5
"""Of a photo's distance that is guessed from the subject's height in it; the rest is the same for all photos."""
INSIDE = -0.01
MIN_DEPTH = 0.05
RIM_PIXELS = 2
SEEN_BY_BOTH_COS = 0.3
MAX_DIFFERENCE = 0.4
UNRELATED_SHARE = 0.8
"""Of the difference between unrelated colours, below which colours speak for being the same."""
MAX_COLORS = 120
NEAR_ROWS = 3


class Coherence:
    """Photos whose cameras are to be found.

    Args:
        photos: n photos, n at least 2.
        blur: in pixels, an odd number, of their colours.
        elevation_deg: (n,) as it is expected of each camera; without it the usual one.
    """

    def __init__(self, photos: CentredPhotos, blur: int = 5, elevation_deg: Float[Tensor, " n"] | None = None) -> None:
        self.photos, self.count = photos, len(photos)
        self.device = photos.images.device
        usual = torch.full_like(photos.half_width, ELEVATION_DEG)
        self.elevation_deg = usual if elevation_deg is None else elevation_deg.to(usual)
        farther = -photos.height.log()
        nearness = photos.half_width.log().mean()
        self.log_distance = HEIGHT_SHARE * (farther - farther.mean()) - nearness + math.log(1.35)
        solid = photos.masks > 0.5
        rim = solid & (-max_pool2d(-solid[:, None].float(), 2 * RIM_PIXELS + 1, 1, RIM_PIXELS)[:, 0] < 0.5)
        self._inner, self._rim = [_centres(mask) for mask in solid], [_centres(mask) for mask in rim]
        pairs = [(own, other) for other in range(self.count) for own in range(self.count) if own != other]
        place = {pair: index for index, pair in enumerate(pairs)}
        by_own = [place[own, other] for own, other in sorted(pairs)]
        self._own, self._other = (torch.tensor(side, device=self.device) for side in zip(*pairs, strict=True))
        self._by_own = torch.tensor(by_own, device=self.device)
        self.colors = _blurred(photos.images, solid, blur)
        self._unrelated = self._unrelated_difference(solid)

    def _unrelated_difference(self, solid: Tensor) -> Tensor:
        """(n, h, w) mean difference between each pixel's colour and the colours of all photos about as high up.

        Of a subject with a red top and a white foot, photos are alike row by row from wherever they are taken.
        """
        rows = self.colors.permute(2, 0, 3, 1)
        height = solid.shape[1]
        difference = []
        for row in range(height):
            near = slice(max(0, row - NEAR_ROWS), row + NEAR_ROWS + 1)
            colors = rows[near][solid.transpose(0, 1)[near]]
            if not len(colors):
                difference.append(torch.zeros_like(rows[row, ..., 0]))
                continue
            some = colors[:: max(1, len(colors) // MAX_COLORS)]
            apart = (rows[row, ..., None, :] - some).abs().mean(-1).clamp(max=MAX_DIFFERENCE)
            difference.append(apart.mean(-1))
        return torch.stack(difference, dim=1)

    def neutral(self, azimuth_deg: Float[Tensor, "sets n"]) -> Float[Tensor, "6 sets n"]:
        """Cameras at given azimuths, and else as they usually are."""
        zero = torch.zeros_like(azimuth_deg)
        return torch.stack([azimuth_deg, self.elevation_deg.expand_as(zero), zero, zero, zero, zero])

    def pixels(self, count: int, generator: torch.Generator) -> Float[Tensor, "n {count} 2"]:
        """Random pixels of each silhouette, half of them at its rim: x to the right and y up, in [-1, 1]."""

        def some(places: Tensor, wanted: int) -> Tensor:
            return places[torch.randint(len(places), (wanted,), generator=generator).to(self.device)]

        pairs = zip(self._inner, self._rim, strict=True)
        return torch.stack([torch.cat([some(a, count // 2), some(b, count - count // 2)]) for a, b in pairs])

    def poses(self, cameras: Float[Tensor, "6 sets n"]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (sets, n, 3, 3) of the turned photos' frames to the world, distances (sets, n), positions."""
        azimuth, elevation, roll, yaw, pitch, nearer = cameras.unbind(0)
        upright = _looking(azimuth, elevation)
        rotation = upright @ to_upright(roll, yaw, pitch)
        distance = (self.log_distance + nearer).exp()
        return rotation, distance, upright[..., 2] * distance[..., None]

    def rays(self, rotation: Tensor, pixels: Tensor) -> Tensor:
        """(sets, n, p, 3) directions of unit length through pixels (n, p, 2)."""
        plane = pixels * self.photos.half_width[:, None, None]
        local = normalize(torch.cat([plane, -torch.ones_like(plane[..., :1])], dim=-1), dim=-1)
        return torch.einsum("snab,npb->snpa", rotation, local)

    def seen(self, cameras: Tensor, pixels: Tensor, points: int, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        """What other photos see of points along rays.

        Args:
            cameras: (6, sets, n).
            pixels: (n, p, 2).
            points: per ray.
            shift: of the points, in steps.

        Returns:
            (sets, n, p, points) how far inside all others' silhouettes, and places (n, sets, n - 1, p, points, 2) in
            each other photo, as `grid_sample` wants them.
        """
        count, sets, rays = self.count, cameras.shape[1], pixels.shape[1]
        rotation, distance, position = self.poses(cameras)
        directions = self.rays(rotation, pixels)
        along = (torch.linspace(-1, 1, points, device=self.device) + shift * 2 / (points - 1)) * REACH
        reach = (distance[..., None] + along)[:, self._own, None]
        turned = rotation[:, self._other]
        moved = torch.einsum("sqab,sqpa->sqpb", turned, directions[:, self._own])
        start = torch.einsum("sqab,sqa->sqb", turned, position[:, self._own] - position[:, self._other])[:, :, None]
        width = self.photos.half_width[self._other][:, None, None]
        depth = -(start[..., 2:] + reach * moved[..., 2:]).clamp(max=-MIN_DEPTH) * width
        x = (start[..., :1] + reach * moved[..., :1]) / depth
        y = (start[..., 1:2] + reach * moved[..., 1:2]) / -depth
        places = torch.stack([x, y], dim=-1).view(sets, count, count - 1, rays, points, 2).transpose(0, 1)
        flat = places.reshape(count, sets * (count - 1) * rays, points, 2)
        inside = _sample(self.photos.depth_inside[:, None], flat)
        inside = inside.view(count, sets, count - 1, rays, points).transpose(0, 1).flatten(1, 2)
        inside = inside[:, self._by_own].view(sets, count, count - 1, rays, points).amin(dim=2)
        return inside, places

    def miss(self, cameras: Tensor, pixels: Tensor, points: int, shift: float = 0.0) -> Float[Tensor, "sets n"]:
        """(sets, n) how far outside another silhouette the pixels' best points lie, in halves of the frame."""
        inside, _ = self.seen(cameras, pixels, points, shift)
        return (-inside.amax(dim=-1)).clamp(min=0).mean(-1)

    def prior(self, cameras: Float[Tensor, "6 sets n"]) -> Float[Tensor, "sets n"]:
        """(sets, n) squared deviations from what is usual."""
        _, elevation, roll, yaw, pitch, nearer = cameras.unbind(0)
        return (
            ((elevation - self.elevation_deg) / ELEVATION_SPREAD_DEG).square()
            + (roll / ROLL_SPREAD_DEG).square()
            + (yaw / OFF_CENTRE_SPREAD_DEG).square()
            + (pitch / OFF_CENTRE_SPREAD_DEG).square()
            + (nearer / DISTANCE_SPREAD).square()
        )

    def evidence(self, cameras: Tensor, pixels: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """(sets,) miss, and (sets,) what colours say: negative where photos that see the same side are alike there.

        A pixel that other photos show in about the same colour speaks for the cameras the more, the more its colour
        stands out; where no other photo sees its side, it says nothing.
        """
        inside, places = self.seen(cameras, pixels, points)
        count, sets, rays = self.count, cameras.shape[1], pixels.shape[1]
        reached = inside > INSIDE
        first = reached.float().argmax(dim=-1)
        before = (first - 1).clamp(min=0)
        low, high = (inside.gather(-1, at[..., None])[..., 0] for at in (before, first))
        share = ((INSIDE - low) / (high - low).clamp(min=1e-4)).clamp(0, 1)

        def of_other(values: Tensor) -> Tensor:
            return values[:, self._own].view(sets, count, count - 1, rays).transpose(0, 1)

        def place(at: Tensor) -> Tensor:
            index = of_other(at)[..., None, None].expand(*places.shape[:4], 1, 2)
            return places.gather(4, index)[..., 0, :]

        where = torch.lerp(place(before), place(first), of_other(share)[..., None])
        other = _sample(self.colors, where.reshape(count, -1, rays, 2)).view(count, 3, sets, count - 1, rays)
        own_places = (pixels * pixels.new_tensor([1.0, -1.0]))[:, None]
        own = _sample(self.colors, own_places)[:, :, 0][self._own].view(count, count - 1, 3, rays)
        unrelated = _sample(self._unrelated[:, None], own_places)[:, 0, 0][self._own].view(count, 1, count - 1, rays)
        difference = (other - own.transpose(1, 2)[:, :, None]).abs().mean(1).clamp(max=MAX_DIFFERENCE)
        backward = _looking(*cameras[:2])[..., 2]
        cosine = (
            (backward[:, self._own] * backward[:, self._other]).sum(-1).view(sets, count, count - 1).transpose(0, 1)
        )
        weight = ((cosine - SEEN_BY_BOTH_COS) / (1 - SEEN_BY_BOTH_COS)).clamp(min=0)[..., None]
        weight = weight * of_other((reached.any(dim=-1) & (first > 0)).float())
        speaks = ((difference - UNRELATED_SHARE * unrelated) * weight).sum(dim=(0, 2, 3)) / (rays * count)
        miss = (-inside.amax(dim=-1)).clamp(min=0).mean(dim=(1, 2))
        return miss, speaks

    def cameras(self, one: Float[Tensor, "6 n"]) -> tuple[Cameras, Float[Tensor, "n 3 3"]]:
        """Places of one set of cameras, and rotations (n, 3, 3) from the turned photos' frames to upright ones."""
        azimuth, elevation, roll, yaw, pitch, nearer = one
        places = Cameras(
            wrap_degrees(azimuth), elevation, (self.log_distance + nearer).exp(), self.photos.fov_y_deg
        )  # fmt: skip
        return places, to_upright(roll, yaw, pitch)


def to_upright(roll_deg: Tensor, yaw_deg: Tensor, pitch_deg: Tensor) -> Tensor:
    """(..., 3, 3) rotations that first turn by yaw and pitch, then roll."""
    roll, yaw, pitch = (torch.deg2rad(angle) for angle in (roll_deg, yaw_deg, pitch_deg))
    one, zero = torch.ones_like(roll), torch.zeros_like(roll)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    rolled = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    pitched = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    yawed = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    return rolled @ pitched @ yawed


def _looking(azimuth_deg: Tensor, elevation_deg: Tensor) -> Tensor:
    """(..., 3, 3) rotations of cameras that look at the origin: columns right, up, backward."""
    shape = azimuth_deg.shape
    flat = azimuth_deg.flatten()
    cameras = Cameras(flat, elevation_deg.flatten(), torch.ones_like(flat), torch.ones_like(flat))
    return cameras.camera_to_world[:, :3, :3].view(*shape, 3, 3)


def _sample(images: Tensor, places: Tensor) -> Tensor:
    """Values (n, c, h, w) of images (n, c, height, width) at places (n, h, w, 2)."""
    return grid_sample(images, places, align_corners=False, padding_mode="border")


def _blurred(images: Tensor, solid: Tensor, pixels: int) -> Tensor:
    """(n, 3, h, w) the subjects' blurred colours, and their mean colour where there is no subject nearby."""
    weight = solid[:, None].float()
    mean = (images * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    total, share = (avg_pool2d(values, pixels, 1, pixels // 2) for values in (images * weight, weight))
    return torch.where(share > 0.05, total / share.clamp(min=0.05), mean)


def _centres(mask: Tensor) -> Tensor:
    """(k, 2) centres of a mask's pixels, x to the right and y up, in [-1, 1]."""
    y, x = torch.nonzero(mask, as_tuple=True)
    height, width = mask.shape
    return torch.stack([(x + 0.5) * 2 / width - 1, 1 - (y + 0.5) * 2 / height], dim=-1)
