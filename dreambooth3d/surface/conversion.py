"""A mesh that begins as an asset with a density looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.cameras import Viewpoints, spread_cameras
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.representation.interface import Rendering, Representation
from dreambooth3d.surface.distance import DensityVolume, mesh_distance, triangles_mesh
from dreambooth3d.surface.grid import TetrahedralGrid

POINTS_PER_CUBE = 3
"""Along each side of the grid's cubes, at which a density is asked for."""
POINTS_AT_ONCE = 1 << 18
OPACITIES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
"""Of a cube, from which it counts as solid: those that are tried."""
COMPARED_VIEWS, COMPARED_SIZE = 6, 64
COLOR_STEPS, COLOR_POINTS, COLOR_RATE, COLOR_DECAY = 100, 8192, 2e-2, 0.1
COLOR_VIEWS, COLOR_SIZE, COLOR_ELEVATIONS_DEG = 12, 64, (0.0, 15.0, 40.0, -20.0, 65.0)
SURE = 0.99
"""Opacity from which a pixel shows nothing of the background."""


class Mesh(Protocol):
    """What is asked of the mesh that is made; see `surface_mesh.SurfaceMesh`."""

    grid: TetrahedralGrid
    linear: Tensor
    shift: Tensor

    @property
    def encoding(self) -> nn.Module: ...
    @property
    def head(self) -> nn.Module: ...
    @property
    def background(self) -> nn.Module: ...

    @property
    def device(self) -> torch.device: ...
    @property
    def scale(self) -> Tensor: ...
    def set_distance(self, values: Tensor) -> None: ...
    def require_surface(self) -> None: ...
    def world_of(self, points: Tensor) -> Tensor: ...
    def own_of(self, points: Tensor) -> Tensor: ...
    def seen(self, places: Tensor, normals: Tensor, towards: Tensor) -> Tensor: ...
    def render(self, cameras: Viewpoints, size: int, *, with_normals: bool = False) -> Rendering: ...
    def zero_grad(self, set_to_none: bool = True) -> None: ...


def begin_as(made: Mesh, source: Representation, shares_texture: bool) -> None:
    """Give a mesh the surface and the colours of another asset.

    Args:
        made: fresh, with `settings_for` that asset.
        source: the asset.
        shares_texture: whether a field's encoding is of the same kind.

    Raises:
        ConfigError: it has neither density nor triangles, or nothing of it is solid.
    """
    with torch.no_grad():
        dense = source.density_and_color(torch.zeros(1, 3, device=source.device)) is not None
    own = source.triangles()
    if not dense and own is None:
        raise ConfigError(
            f"representation: mesh cannot go on from {source.kind}, which has no surface. Leave representation out, "
            f"so that the stage goes on with {source.kind}."
        )
    _stand_as(made, source)
    if own is not None:
        places = made.world_of(made.grid.vertices).cpu()
        found = mesh_distance(places, triangles_mesh(own.vertices, own.faces)).to(made.device)
        made.set_distance(found / made.scale)
    else:
        _take_density(made, source)
    made.require_surface()
    _take_colors(made, source, shares_texture)


def settings_for(source: Representation, config: MeshConfig) -> MeshConfig:
    """The settings with a field's background and, where they ask for no other, the encoding of its colours."""
    if not isinstance(source, Field):
        return config
    config = config.model_copy(update={"background": source.config.background})
    if config.texture is not None or source.latent_head is not None:
        return config
    names = set(TextureConfig.model_fields)
    shared = TextureConfig(**{name: value for name, value in source.config.model_dump().items() if name in names})
    return config.model_copy(update={"texture": shared})


def _stand_as(made: Mesh, source: Representation) -> None:
    """Take the frame of a field, in which its colours are kept."""
    if isinstance(source, Field):
        made.linear.copy_(torch.linalg.inv(source.turn).T)
        made.shift.copy_(-source.shift @ torch.linalg.inv(source.turn))


@torch.no_grad()
def _take_density(made: Mesh, source: Representation) -> None:
    """Find the density at which the outlines are those of the source, and take the surface there."""
    volume = _density_volume(made, source)
    cameras = spread_cameras(COMPARED_VIEWS)
    wanted = source.render(cameras, COMPARED_SIZE)
    best, chosen = -1.0, None
    for threshold in _thresholds(made):
        found = volume.distance(made.grid.vertices.cpu(), threshold)
        if found is None:
            continue
        made.set_distance(found.to(made.device))
        overlap = _overlap(made.render(cameras, COMPARED_SIZE), wanted)
        if overlap > best:
            best, chosen = overlap, found
    if chosen is None:
        raise ConfigError(
            f"representation: nothing of the {source.kind} is solid enough for a mesh to begin from. Train it longer, "
            "or raise its regularizers.opacity."
        )
    made.set_distance(chosen.to(made.device))


def _thresholds(made: Mesh) -> Iterator[float]:
    """Densities in the frame of the grid at which a cube has the opacities that are tried."""
    for opacity in OPACITIES:
        yield -torch.log1p(torch.tensor(-opacity)).item() / made.grid.cell


def _density_volume(made: Mesh, source: Representation) -> DensityVolume:
    """The source's density in the frame of the grid, finer than that."""
    size = POINTS_PER_CUBE * round(2 / made.grid.cell) + 1
    axis = torch.linspace(-1, 1, size, device=made.device)
    parts = []
    for slab in axis.split(max(1, POINTS_AT_ONCE // size**2)):
        points = made.world_of(torch.cartesian_prod(slab, axis, axis)).to(source.device)
        found = source.density_and_color(points)
        assert found is not None
        parts.append(found[0].float().cpu())
    density = torch.cat(parts).view(size, size, size) * made.scale.cpu()
    return DensityVolume(density.numpy())


def _overlap(shown: Rendering, wanted: Rendering) -> float:
    """Intersection over union of the opacities."""
    first, second = shown.opacity, wanted.opacity.to(shown.opacity)
    return (torch.minimum(first, second).sum() / torch.maximum(first, second).sum().clamp(min=1e-6)).item()


def _take_colors(made: Mesh, source: Representation, shares_texture: bool) -> None:
    """Those of the source: of the encoding where both have the same, then as the source is seen."""
    if isinstance(source, Field):
        made.background.load_state_dict(source.background.state_dict())
        if shares_texture and source.latent_head is None:
            made.encoding.load_state_dict(source.encoding.state_dict())
            made.head.load_state_dict(source.head.state_dict())
    seen, colors = _seen_colors(made, source)
    if len(colors) > 0:
        _fit_colors(made, seen, colors)


@torch.no_grad()
def _seen_colors(made: Mesh, source: Representation) -> tuple[tuple[Tensor, Tensor, Tensor], Float[Tensor, "k 3"]]:
    """What `Mesh.seen` takes of points of the mesh, and how the source looks there in views from all around.

    Rays gather a field's colours on their way in, so that those at its surface are not quite what is seen.
    """
    cameras = spread_cameras(COLOR_VIEWS, COLOR_ELEVATIONS_DEG)
    wanted = source.render(cameras, COLOR_SIZE)
    shown = made.render(cameras, COLOR_SIZE, with_normals=True)
    assert shown.normals is not None
    solid = (wanted.opacity.to(made.device) > SURE) & (shown.opacity > SURE)
    origins, directions = cameras.to(made.device).rays(COLOR_SIZE, COLOR_SIZE)
    points = (origins + shown.depth[..., None] * directions)[solid]
    seen = made.own_of(points), shown.normals.permute(0, 2, 3, 1)[solid], -directions[solid]
    return seen, wanted.color.to(made.device).permute(0, 2, 3, 1)[solid]


def _fit_colors(made: Mesh, seen: tuple[Tensor, Tensor, Tensor], colors: Float[Tensor, "k 3"]) -> None:
    """Regress base colours at points, so that these look right; a random part of them at each step."""
    texture = [*made.encoding.parameters(), *made.head.parameters()]
    optimizer = torch.optim.Adam(texture, COLOR_RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, COLOR_DECAY ** (1 / COLOR_STEPS))
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(COLOR_STEPS):
            chosen = torch.randint(len(colors), (COLOR_POINTS,), generator=generator).to(made.device)
            loss = (made.seen(*(each[chosen] for each in seen)) - colors[chosen]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    made.zero_grad(set_to_none=True)
