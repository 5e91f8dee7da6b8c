"""Small voxel fields, one for each set of cameras, that have to show what the photos show: render and compare.

The field whose cameras are right can explain all photos with one surface. Silhouettes bound it from outside.
"""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

from dreambooth3d.photos.cameras.coherence import REACH, Coherence

VOXELS = 24
EXTENT_VOXELS = 16
"""Of the coarse grid by which the box of each field is found."""
OPTICAL_DEPTH = 4.0
"""Through the shortest side of the box, of density 1."""
HULL_SLOPE, MIN_LOGIT, SURE_LOGIT = 50.0, -5.0, 0.5
NEARLY_INSIDE = -0.04
RAYS, COARSE_POINTS, POINTS = 128, 20, 12
FINAL_RAYS, FINAL_COARSE_POINTS, FINAL_POINTS = 300, 32, 20
MISS_RAYS_SHARE, MISS_POINTS = 2, 16
FIELD_RATE, GAIN_RATE, LAST_RATE_SHARE = 0.25, 0.01, 0.2
CAMERAS_FROM = 0.25
"""Share of the steps after which cameras move too."""
SMOOTHNESS = 0.03
GAIN_WEIGHT = 0.1
MISS_WEIGHT, PRIOR_WEIGHT = 6.0, 3e-3
ADAM_BETAS = (0.8, 0.95)
CAMERA_RATES = (1.0, 0.7, 0.4, 0.2, 0.2, 0.008)
"""Of azimuth, elevation, roll, yaw, pitch in degrees and the logarithm of the distance, for a rate of 1."""


class Reconstructions:
    """A field for each of some sets of cameras.

    Args:
        problem: n photos.
        cameras: (6, sets, n).
    """

    def __init__(self, problem: Coherence, cameras: Float[Tensor, "6 sets n"]) -> None:
        self.problem, self.cameras = problem, cameras.clone()
        sets, count = cameras.shape[1:]
        reach = torch.full((sets, 3), REACH, device=problem.device)
        with torch.no_grad():
            places = _centres(EXTENT_VOXELS, -reach, reach)
            inside = self._hull(places)[0][..., None]
            solid = (inside > NEARLY_INSIDE) | (inside >= inside.amax(dim=1, keepdim=True))
            margin = 1.2 * REACH / EXTENT_VOXELS
            self.low = places.masked_fill(~solid, torch.inf).amin(dim=1) - margin
            self.high = places.masked_fill(~solid, -torch.inf).amax(dim=1) + margin
            inside, colors = self._hull(_centres(VOXELS, self.low, self.high))
        self.density = OPTICAL_DEPTH / (self.high - self.low).amin(dim=-1)
        logit = (inside * HULL_SLOPE).clamp(MIN_LOGIT, 0) + SURE_LOGIT
        values = torch.cat([logit[:, None], torch.logit(0.9 * colors.transpose(1, 2) + 0.05)], dim=1)
        self.voxels = values.view(sets, 4, VOXELS, VOXELS, VOXELS)
        self.log_gain = torch.zeros(sets, count, 3, device=problem.device)

    def seen_from(self, field: int, cameras: Float[Tensor, "6 sets n"]) -> Reconstructions:
        """One of the fields, seen by other sets of cameras."""
        sets = cameras.shape[1]
        seen = copy(self)
        seen.cameras = cameras
        for name in ("low", "high", "density", "voxels", "log_gain"):
            own = getattr(self, name)[field : field + 1]
            setattr(seen, name, own.expand(sets, *own.shape[1:]))
        return seen

    def _hull(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """How far places (sets, k, 3) are inside all silhouettes (sets, k), and the photos' mean colours there."""
        rotation, _, position = self.problem.poses(self.cameras)
        photos, shape = self.problem.photos, places.shape[:2]
        depths, colors, weights = [], [], []
        for index in range(self.problem.count):
            local = torch.einsum("sab,sma->smb", rotation[:, index], places - position[:, index, None])
            depth = (-local[..., 2:]).clamp(min=0.05) * photos.half_width[index]
            where = (local[..., :2] / depth * local.new_tensor([1.0, -1.0])).view(1, -1, 1, 2)
            layers = torch.cat([photos.depth_inside[index][None], self.problem.colors[index]])[None]
            seen = grid_sample(layers, where, align_corners=False, padding_mode="border").view(4, *shape)
            depths.append(seen[0])
            weights.append(torch.sigmoid(30 * seen[0]))
            colors.append(seen[1:] * weights[-1])
        total = torch.stack(weights).sum(dim=0).clamp(min=1e-4)
        return torch.stack(depths).amin(dim=0), (torch.stack(colors).sum(dim=0) / total).permute(1, 2, 0)

    def _interval(self, cameras: Tensor, pixels: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """(sets, n, p) where rays enter and leave the hull, relative to the distance of the origin."""
        inside, _ = self.problem.seen(cameras, pixels, points)
        along = torch.linspace(-REACH, REACH, points, device=inside.device)
        hit = (inside > 0.75 * NEARLY_INSIDE) | (inside >= inside.amax(dim=-1, keepdim=True))
        margin = 0.7 * 2 * REACH / (points - 1)
        first = along.expand_as(inside).masked_fill(~hit, torch.inf).amin(dim=-1)
        last = along.expand_as(inside).masked_fill(~hit, -torch.inf).amax(dim=-1)
        return first - margin, last + margin

    def render(
        self, voxels: Tensor, log_gain: Tensor, cameras: Tensor, pixels: Tensor, points: tuple[int, int], shift: float
    ) -> tuple[Tensor, Tensor]:
        """Premultiplied colour (sets, 3, n, p) and opacity (sets, n, p) at pixels (n, p, 2).

        `points` per ray are those by which the hull is found, and those at which the field is evaluated in it.
        """
        with torch.no_grad():
            first, last = self._interval(cameras, pixels, points[0])
        rotation, distance, position = self.problem.poses(cameras)
        directions = self.problem.rays(rotation, pixels)
        share = (torch.arange(points[1], device=pixels.device) + shift) / points[1]
        reach = distance[:, :, None, None] + first[..., None] + share * (last - first)[..., None]
        places = position[:, :, None, None] + directions[:, :, :, None] * reach[..., None]
        low, high = self.low[:, None, None, None], self.high[:, None, None, None]
        where = ((places - low) / (high - low) * 2 - 1).flatten(1, 3)[:, :, None, None]
        values = grid_sample(voxels, where, align_corners=False, padding_mode="border").view(
            len(voxels), 4, *reach.shape[1:]
        )
        step = ((last - first) / points[1])[..., None]
        alpha = 1 - torch.exp(-softplus(values[:, 0]) * self.density[:, None, None, None] * step)
        behind = torch.cumprod(1 - alpha[..., :-1] + 1e-6, dim=-1)
        weight = alpha * torch.cat([torch.ones_like(alpha[..., :1]), behind], dim=-1)
        color = (torch.sigmoid(values[:, 1:]) * weight[:, None]).sum(dim=-1)
        return color * log_gain.exp().transpose(1, 2)[..., None], weight.sum(dim=-1)

    def fit(
        self, steps: int, generator: torch.Generator, rate: float, used: Float[Tensor, "sets n"] | None = None
    ) -> None:
        """Improve fields and, at `rate` in degrees, cameras; only photos that are used, 1 or 0, count."""
        voxels, log_gain = (values.clone().requires_grad_() for values in (self.voxels, self.log_gain))
        unknown = [values.clone().requires_grad_() for values in self.cameras]
        groups = [{"params": [voxels], "lr": FIELD_RATE}, {"params": [log_gain], "lr": GAIN_RATE}]
        groups += [{"params": [values], "lr": 0.0} for values in unknown]
        optimizer = torch.optim.Adam(groups, betas=ADAM_BETAS)
        for step in range(steps):
            progress = step / steps
            moving = rate > 0 and progress >= CAMERAS_FROM
            optimizer.param_groups[0]["lr"] = FIELD_RATE * (1 - (1 - LAST_RATE_SHARE) * progress)
            for group, share in zip(optimizer.param_groups[2:], CAMERA_RATES, strict=True):
                group["lr"] = rate * share * (1 - 0.9 * progress) if moving else 0.0
            shift = torch.rand(2, generator=generator).tolist()
            cameras = torch.stack(unknown) if moving else self.cameras
            pixels = self.problem.pixels(RAYS, generator)
            color, opacity = self.render(voxels, log_gain, cameras, pixels, (COARSE_POINTS, POINTS), shift[0])
            error = ((color - self._target(pixels)).square().sum(1) + (1 - opacity).square()).mean(-1)
            loss = (error if used is None else error * used).mean(1).sum()
            loss = loss + SMOOTHNESS * _roughness(voxels) + GAIN_WEIGHT * log_gain.square().mean((1, 2)).sum()
            if moving:
                miss = self.problem.miss(cameras, pixels[:, ::MISS_RAYS_SHARE], MISS_POINTS, shift[1] - 0.5)
                loss = loss + (MISS_WEIGHT * miss + PRIOR_WEIGHT * self.problem.prior(cameras)).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.voxels, self.log_gain = voxels.detach(), log_gain.detach()
        self.cameras = torch.stack(unknown).detach()

    def _target(self, pixels: Tensor) -> Tensor:
        """(3, n, p) colours of the photos."""
        places = (pixels * pixels.new_tensor([1.0, -1.0]))[:, None]
        return grid_sample(self.problem.colors, places, align_corners=False, padding_mode="border")[:, :, 0].transpose(
            0, 1
        )

    @torch.no_grad()
    def errors(self, rays: int = FINAL_RAYS) -> tuple[Float[Tensor, "sets n"], Float[Tensor, "sets n"]]:
        """(sets, n) mean squared difference in colour, and in opacity, of each photo's subject."""
        pixels = self.problem.pixels(rays, torch.Generator().manual_seed(1))
        points = (FINAL_COARSE_POINTS, FINAL_POINTS)
        color, opacity = self.render(self.voxels, self.log_gain, self.cameras, pixels, points, 0.5)
        return (color - self._target(pixels)).square().mean(dim=(1, 3)), (1 - opacity).square().mean(-1)


def _centres(voxels: int, low: Tensor, high: Tensor) -> Tensor:
    """(sets, voxels^3, 3) centres of the voxels of boxes with corners (sets, 3), x the fastest."""
    share = (torch.arange(voxels, device=low.device) + 0.5) / voxels
    z, y, x = torch.meshgrid(share, share, share, indexing="ij")
    return low[:, None] + torch.stack([x, y, z], dim=-1).view(1, -1, 3) * (high - low)[:, None]


def _roughness(voxels: Tensor) -> Tensor:
    """Squared differences of neighbouring voxels, summed over the fields."""
    return torch.stack([voxels.diff(dim=axis).square().mean(dim=(1, 2, 3, 4)).sum() for axis in (2, 3, 4)]).sum()
