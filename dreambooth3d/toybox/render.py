"""Sphere tracing of toybox scenes: exact image, mask and depth from any camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.toybox.packing import pack_scenes
from dreambooth3d.toybox.recipes import Recipe
from dreambooth3d.toybox.shapes import Scene, signed_distance, surface_colour, surface_normal

HIT_DISTANCE = 1e-3
GRAZING_DISTANCE = 6e-3
MAX_STEPS = 96
STEPS_BETWEEN_COMPACTIONS = 2
RAYS_PER_CHUNK_CPU = 1 << 14
RAYS_PER_CHUNK_CUDA = 1 << 22


@dataclass(frozen=True)
class Render:
    """What a camera sees.

    Attributes:
        image: (B, 3, H, W) RGB in [0, 1], over the background.
        mask: (B, H, W) in [0, 1], the share of each pixel that the subject covers.
        depth: (B, H, W) distance from the camera along the pixel's rays in world units, averaged over those that hit;
            0 where none does.
    """

    image: Float[Tensor, "scenes 3 height width"]
    mask: Float[Tensor, "scenes height width"]
    depth: Float[Tensor, "scenes height width"]


@dataclass(frozen=True)
class Light:
    """A soft light: colour times (ambient + sky * (1 + n_z) / 2 + diffuse * max(0, n . direction)).

    Attributes:
        direction: (B, 3) or (1, 3), unit length, world frame, towards the light.
        ambient, sky, diffuse: weights that sum to about 1, so that colours stay recognisable.
    """

    direction: Float[Tensor, "scenes 3"]
    ambient: float = 0.56
    sky: float = 0.2
    diffuse: float = 0.3

    @staticmethod
    def default(device: torch.device | str = "cpu") -> Light:
        """From above and a little from the front."""
        direction = torch.tensor([[0.45, 0.25, 0.86]], device=device)
        return Light(torch.nn.functional.normalize(direction, dim=-1))


def render_views(
    recipe: Recipe, cameras: Cameras, background: Tensor | None = None, size: int = 64, supersample: int = 2
) -> Render:
    """Render one subject from n cameras, on the cameras' device.

    Args:
        recipe: the subject.
        cameras: n cameras.
        background: (3,) or (n, 3) colour or (n, 3, size, size) image in [0, 1]; white where None.
        size: height and width in pixels.
        supersample: rays per pixel and axis.

    Returns:
        Render with B = n.
    """
    device = cameras.azimuth_deg.device
    scene = pack_scenes([recipe]).to(device)
    if background is None:
        background = torch.ones(3, device=device)
    if background.dim() == 1:
        background = background.expand(len(cameras), 3)
    return render_scenes(scene, cameras, background, size, supersample)


@torch.no_grad()
def render_scenes(
    scene: Scene,
    cameras: Cameras,
    background: Float[Tensor, "n 3"] | Float[Tensor, "n 3 {size} {size}"],
    size: int = 64,
    supersample: int = 2,
    *,
    light: Light | None = None,
    compact: bool = True,
) -> Render:
    """Render B scenes from one camera each, or one scene from n cameras.

    Args:
        scene: B scenes, or one.
        cameras: B cameras, or any number n for one scene, on the scene's device.
        background: (n, 3) colours or (n, 3, size, size) images in [0, 1].
        size: height and width in pixels.
        supersample: rays per pixel and axis.
        light: default light where None.
        compact: drop finished rays while tracing; False keeps the batch dense (the slow reference).

    Returns:
        Render of n images.

    Raises:
        ValueError: neither one scene nor as many scenes as cameras.
    """
    views = len(cameras)
    if len(scene) not in (1, views):
        raise ValueError(f"render_scenes: {len(scene)} scenes for {views} cameras. Pass one scene or one per camera.")
    light = light or Light.default(scene.centre.device)
    origins, directions = cameras.rays(size * supersample, size * supersample)
    origins, directions = (value.reshape(len(scene), -1, 3) for value in (origins, directions))
    chunk = max(1, (RAYS_PER_CHUNK_CUDA if origins.is_cuda else RAYS_PER_CHUNK_CPU) // len(scene))
    parts = [
        _shade_rays(scene, o, d, light, compact)
        for o, d in zip(origins.split(chunk, dim=1), directions.split(chunk, dim=1), strict=True)
    ]
    shape = (views, size, supersample, size, supersample)
    colour, depth, hit = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    return _average(colour.reshape(*shape, 3), depth.reshape(shape), hit.reshape(shape), background)


def _average(colour: Tensor, depth: Tensor, hit: Tensor, background: Tensor) -> Render:
    """Average the rays of each pixel and lay the subject over the background (n, 3) or (n, 3, H, W)."""
    share = hit.float()
    mask = share.mean(dim=(2, 4))
    hits = share.sum(dim=(2, 4))
    subject = colour.mean(dim=(2, 4)).permute(0, 3, 1, 2)
    if background.dim() == 2:
        background = background[..., None, None]
    image = (subject + (1 - mask[:, None]) * background).clamp(0, 1)
    return Render(image, mask, depth.sum(dim=(2, 4)) / hits.clamp_min(1))


def _shade_rays(scene: Scene, origins: Tensor, directions: Tensor, light: Light, compact: bool) -> tuple[Tensor, ...]:
    """Colours (B, N, 3), depths (B, N) and hits (B, N) of rays (B, N, 3); colour and depth are 0 without a hit."""
    depth, hit = trace(scene, origins, directions, compact=compact)
    selected = _padded_indices(hit) if compact else _all_indices(hit)
    points = _take(origins, selected) + _take(depth, selected)[..., None] * _take(directions, selected)
    colour = torch.zeros_like(origins)
    colour.scatter_(1, selected[..., None].expand(-1, -1, 3), shade(scene, points, light))
    return colour * hit[..., None], depth * hit, hit


def shade(scene: Scene, points: Float[Tensor, "scenes n 3"], light: Light) -> Float[Tensor, "scenes n 3"]:
    """(B, N, 3) shaded colours at surface points (B, N, 3)."""
    normal = surface_normal(scene, points)
    diffuse = torch.einsum("bnc,bc->bn", normal, light.direction.expand(len(scene), 3)).clamp_min(0)
    strength = light.ambient + light.sky * (0.5 + 0.5 * normal[..., 2]) + light.diffuse * diffuse
    return (surface_colour(scene, points) * strength[..., None]).clamp(0, 1)


def trace(
    scene: Scene,
    origins: Float[Tensor, "scenes rays 3"],
    directions: Float[Tensor, "scenes rays 3"],
    *,
    compact: bool = True,
) -> tuple[Float[Tensor, "scenes rays"], Bool[Tensor, "scenes rays"]]:
    """Intersect rays with their scenes by sphere tracing.

    Args:
        scene: B scenes.
        origins, directions: (B, N, 3), directions of unit length.
        compact: from step to step keep only the rays that are still under way.

    Returns:
        depth (B, N) along the ray in world units, hit (B, N) bool. Depth has no meaning without a hit.

    Source: Hart 1996, "Sphere tracing".
    """
    near, far = _slab_interval(scene.extent, origins, directions)
    depth, distance = near.clone(), torch.full_like(near, torch.inf)
    selected = _padded_indices(near < far) if compact else _all_indices(near)
    for _ in range(MAX_STEPS // STEPS_BETWEEN_COMPACTIONS):
        if selected.shape[1] == 0:
            break
        o, d, t = (_take(values, selected) for values in (origins, directions, depth))
        gap = t
        for _ in range(STEPS_BETWEEN_COMPACTIONS):
            gap = signed_distance(scene, o + t[..., None] * d)
            t = torch.where(gap > HIT_DISTANCE, t + gap, t)
        depth.scatter_(1, selected, t)
        distance.scatter_(1, selected, gap)
        if compact:
            under_way = (gap > HIT_DISTANCE) & (t < _take(far, selected))
            selected = torch.gather(selected, 1, _padded_indices(under_way))
    return depth, (distance < GRAZING_DISTANCE) & (depth < far) & (near < far)


def _slab_interval(extent: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) entry and exit depth of rays through the box of half sizes (B, 3); entry > exit where they miss it."""
    inverse = 1 / torch.where(directions.abs() < 1e-7, torch.full_like(directions, 1e-7), directions)
    to_centre, reach = -origins * inverse, extent[:, None] * inverse.abs()
    return (to_centre - reach).amax(dim=-1).clamp_min(0), (to_centre + reach).amin(dim=-1)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Values (B, N) or (B, N, 3) at ray indices (B, M)."""
    if values.dim() == 3:
        index = index[..., None].expand(-1, -1, values.shape[-1])
    return torch.gather(values, 1, index)


def _all_indices(values: Tensor) -> Tensor:
    return torch.arange(values.shape[1], device=values.device).expand(values.shape[0], -1)


def _padded_indices(wanted: Tensor) -> Tensor:
    """(B, M) indices of the wanted rays (B, N) first; M is the largest count, shorter rows are filled with others."""
    if wanted.shape[0] == 1:
        return wanted[0].nonzero().reshape(1, -1)
    count = int(wanted.sum(dim=1).max())
    return wanted.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
