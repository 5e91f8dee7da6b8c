"""How a finished field stands: by its mirror plane, and in the middle of the box around it.

Photos taken anyhow say neither where the middle of a subject is, nor how large it is, nor quite how it is turned. What
they leave open, the finished shape says: most subjects are their own mirror images from left to right. Where it ends
above and below, its surface says where the photos show it: under a subject, which photos from above do not show, a
field goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from dreambooth3d.cameras import SUBJECT_RADIUS, Cameras
from dreambooth3d.nerf.field.parts import large_parts
from dreambooth3d.representation.interface import Representation, turn_about_z

RESOLUTION = 64
SOLID_OPACITY = 0.5
"""Of a voxel's diagonal, from which it belongs to the subject."""
COMPARED = 6000
"""Voxels that are compared with their mirror images."""
HEADING_LIMIT_DEG, HEADING_STEP_DEG = 24.0, 4.0
OFFSET_LIMIT, OFFSET_STEP = 0.12, 0.04
REFINEMENTS = 5
"""Halvings of the steps around the best plane."""
PLANES_AT_ONCE = 64
MAX_ERROR_SHARE = 0.65
"""Of the median over all headings that were tried, up to which the best plane is a mirror's."""
SEEN_SIZE, SEEN_SAMPLES = 64, 96
"""Pixels and samples of the renders that tell where the subject ends above and below."""
SEEN_OPACITY = 0.7
"""Of a pixel, from which its depth is the surface's."""
SHOWN = 0.5
"""Share of a pixel that a photo's mask covers, from which the photo shows the subject there."""
STRAY = 2e-3
"""Share of these pixels that may lie above, and below, what counts as seen."""
FLOOR = 1e-2
"""Mean difference between voxels that comes from their size."""


@dataclass(frozen=True)
class Solid:
    """A field as voxels over [-1, 1]^3.

    Attributes:
        layers: (4, z, y, x) opacity, and colours times opacity.
        places: (k, 3) the centres of the subject's voxels.
    """

    layers: Float[Tensor, "4 z y x"]
    places: Float[Tensor, "k 3"]

    @staticmethod
    @torch.no_grad()
    def of(field: Representation) -> Solid | None:
        """An asset's; None if there is nothing in it, or if it has no density."""
        device = field.device
        axis = (torch.arange(RESOLUTION, device=device) + 0.5) * (2 / RESOLUTION) - 1
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        points = torch.stack([x, y, z], dim=-1).view(-1, 3)
        found = field.density_and_color(points)
        if found is None:
            return None
        density, color = found
        opacity = 1 - torch.exp(-density.float() * (2 * math.sqrt(3) / RESOLUTION))
        solid = (opacity > SOLID_OPACITY).view(RESOLUTION, RESOLUTION, RESOLUTION)
        kept = torch.from_numpy(large_parts(solid.cpu().numpy())).to(device)
        if not kept.any():
            return None
        layers = torch.cat([opacity[None], color.float().T * opacity]).view(4, RESOLUTION, RESOLUTION, RESOLUTION)
        return Solid(layers, points[kept.flatten()])

    def at(self, places: Float[Tensor, "planes k 3"]) -> Float[Tensor, "4 planes k"]:
        """Layers at places; nothing outside the cube."""
        where = places[None, :, :, None]
        return grid_sample(self.layers[None], where, align_corners=False)[0, ..., 0]


@dataclass(frozen=True)
class MirrorPlane:
    """The upright plane in which a field is its own mirror image.

    Attributes:
        heading_deg: azimuth of its front end.
        offset: of the plane from the origin, to the left.
        error: of the mirror image, as a share of the median over all headings that were tried.
    """

    heading_deg: float
    offset: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether the field is its own mirror image there, rather than nowhere, or everywhere."""
        inside = abs(self.heading_deg) < HEADING_LIMIT_DEG + HEADING_STEP_DEG / 2
        return inside and self.error <= MAX_ERROR_SHARE


@torch.no_grad()
def mirror_plane(solid: Solid, offset: bool) -> MirrorPlane:
    """The upright plane near azimuth 0 in which a field is most its own mirror image.

    Args:
        solid: the field.
        offset: whether the plane may miss the origin.
    """
    device = solid.places.device
    chosen = torch.randperm(len(solid.places), generator=torch.Generator().manual_seed(0))[:COMPARED]
    places = solid.places[chosen.to(device)]
    own = solid.at(places[None])

    def errors(planes: Tensor) -> Tensor:
        return torch.cat([_difference(solid, places, own, part) for part in planes.split(PLANES_AT_ONCE)])

    steps = torch.tensor([HEADING_STEP_DEG, OFFSET_STEP if offset else 0.0], device=device)
    counts = round(HEADING_LIMIT_DEG / HEADING_STEP_DEG), round(OFFSET_LIMIT / OFFSET_STEP) if offset else 0
    planes = torch.cartesian_prod(*[torch.arange(-count, count + 1, device=device) for count in counts]) * steps
    tried = errors(planes)
    best, least = planes[tried.argmin()], tried.min()
    around = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], device=device)] * 2)
    for _ in range(REFINEMENTS):
        steps = steps / 2
        near = best + around * steps
        found = errors(near)
        best, least = near[found.argmin()], found.min()
    heading, beside = best.tolist()
    # Of each heading its best offset: a body of revolution has a mirror plane at all of them.
    usual = tried.view(-1, 2 * counts[1] + 1).amin(dim=1).median()
    return MirrorPlane(heading, beside, ((least + FLOOR) / (usual + FLOOR)).item())


def _difference(solid: Solid, places: Tensor, own: Tensor, planes: Tensor) -> Tensor:
    """(planes,) mean difference between voxels and their mirror images in planes (planes, 2), as `MirrorPlane`."""
    heading = torch.deg2rad(planes[:, 0])
    left = torch.stack([-heading.sin(), heading.cos(), torch.zeros_like(heading)], dim=-1)
    beside = torch.einsum("kc,pc->pk", places, left) - planes[:, 1:]
    image = places - 2 * beside[..., None] * left[:, None]
    return (solid.at(image) - own).abs().mean(dim=(0, 2))


@torch.no_grad()
def stand_up(
    field: Representation, cameras: Cameras, masks: Float[Tensor, "n height width"], centred: bool
) -> MirrorPlane | None:
    """Turn a finished field to its mirror plane; where its centre is unknown, move and scale it into the usual ball.

    Args:
        field: the field; unchanged if there is nothing in it.
        cameras: of n photos, which show where the subject ends above and below.
        masks: of the subject in these, in [0, 1].
        centred: whether the origin is the subject's centre, as photos that all look at one point say.

    Returns:
        The plane that was found, clear or not; None if the field is empty.
    """
    solid = Solid.of(field)
    if solid is None:
        return None
    plane = mirror_plane(solid, offset=not centred)
    rotation = turn_about_z(-plane.heading_deg if plane.clear else 0.0).to(solid.places)
    if centred:
        field.move(rotation)
        return plane
    places = solid.places @ rotation.T
    low, high = _seen_heights(field, cameras, masks) or (places[:, 2].min(), places[:, 2].max())
    seen = places[(places[:, 2] >= low) & (places[:, 2] <= high)]
    middle = (seen.amin(dim=0) + seen.amax(dim=0)) / 2
    middle[2] = (low + high) / 2
    if plane.clear:
        middle[1] = plane.offset
    # A voxel's centre lies inside the surface by half a voxel, on average.
    radius = (seen - middle).norm(dim=1).max() + 1 / RESOLUTION
    field.move(rotation, -middle, SUBJECT_RADIUS / radius.item())
    return plane


def _seen_heights(
    field: Representation, cameras: Cameras, masks: Float[Tensor, "n height width"]
) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest z of the surface where photos show the subject, but for stray pixels; None if nowhere."""
    cameras, masks = cameras.to(field.device), masks.to(field.device)
    rendering = field.render(cameras, SEEN_SIZE, samples_per_ray=SEEN_SAMPLES)
    origins, directions = cameras.rays(SEEN_SIZE, SEEN_SIZE)
    shown = interpolate(masks[:, None].float(), (SEEN_SIZE, SEEN_SIZE), mode="area")[:, 0] > SHOWN
    points = origins + rendering.depth[..., None] * directions
    heights = points[shown & (rendering.opacity > SEEN_OPACITY)][:, 2]
    if not len(heights):
        return None
    low, high = torch.quantile(heights, torch.tensor([STRAY, 1 - STRAY], device=heights.device))
    return low, high
