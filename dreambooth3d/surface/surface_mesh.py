"""The surface mesh: triangles of a signed distance on a deformable grid of tetrahedra, coloured in space."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import trimesh
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.cameras import PosedCameras, Viewpoints
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.encoding import LOGITS
from dreambooth3d.nerf.field.encodings import make_encoding
from dreambooth3d.nerf.field.radiance_field import Background
from dreambooth3d.nerf.field.regularizers import smoothness
from dreambooth3d.representation.going_on import gone_on
from dreambooth3d.representation.interface import (
    ALBEDO,
    SAMPLES_PER_RAY,
    Losses,
    ParameterGroup,
    PixelRendering,
    Rendering,
    Representation,
    SurfaceMaterial,
    TrainingViews,
    Triangles,
    ViewPixels,
)
from dreambooth3d.representation.shading import Shading
from dreambooth3d.surface import conversion, distance, nvdiffrast_raster
from dreambooth3d.surface import regularizers as own
from dreambooth3d.surface.antialias import antialias
from dreambooth3d.surface.environment import HEIGHT, WIDTH, LightMaps, environment_of, light_maps
from dreambooth3d.surface.files import read_given
from dreambooth3d.surface.grid import TetrahedralGrid, tetrahedral_grid
from dreambooth3d.surface.marching import Topology, surface_vertices, topology
from dreambooth3d.surface.material import Material, shade
from dreambooth3d.surface.paint import Paint
from dreambooth3d.surface.raster import Projection, Raster, meet, project, rasterize

MAX_OFFSET = 0.25
"""Of a cube's edge, along each axis: the tetrahedra stay as they are turned."""
FARTHEST = 2.0
"""Cubes' edges at which signed distances are cut off, so that the surface moves equally fast wherever it gets to."""
COARSER = (4, 2)
"""Cubes per cell of the volumes that are added to the distances, which move the surface in large."""
VIEWS_AT_ONCE = 16
"""While it is looked at."""
SOLID_DENSITY = 60.0
"""In inverse world units, inside."""


@dataclass(frozen=True)
class Geometry:
    """The surface now.

    Attributes:
        topology: of its triangles.
        own: (v, 3) vertices in the frame of the grid.
        world: (v, 3) the same in the world.
    """

    topology: Topology
    own: Float[Tensor, "v 3"]
    world: Float[Tensor, "v 3"]


@dataclass(frozen=True)
class _Shown:
    """Images of the surface: colours weighted by opacity, and the rest as in `TrainingViews`."""

    color: Float[Tensor, "n 3 height width"]
    opacity: Float[Tensor, "n height width"]
    depth: Float[Tensor, "n height width"]
    normals: Float[Tensor, "n 3 height width"]
    directions: Float[Tensor, "n height width 3"]


class SurfaceMesh(Representation):
    """Signed distances and offsets at the vertices of a grid of tetrahedra, and colours on an encoding.

    See `Representation` for what is not described here.

    Args:
        config: resolution, colours, initial ellipsoid, background.
        device: where it lives.

    Source: Shen et al. 2021, "Deep Marching Tetrahedra"; Munkberg et al. 2022, "nvdiffrec".
    """

    kind: ClassVar[str] = "mesh"
    linear: Float[Tensor, "3 3"]
    shift: Float[Tensor, " 3"]
    environment: Float[Tensor, "height width 3"]
    shows_base_color = False

    def __init__(self, config: MeshConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        texture = config.texture or TextureConfig()
        self.config = config.model_copy(update={"texture": texture})
        if config.rasterizer == "nvdiffrast":
            nvdiffrast_raster.require(device)
        self.grid: TetrahedralGrid = tetrahedral_grid(config.resolution).to(device)
        self.encoding = make_encoding(FieldConfig(**texture.model_dump()), device)
        self.head = self.encoding.make_head(texture.hidden_width)
        self.paint = Paint(FieldConfig(**texture.model_dump()), device) if config.material == "pbr" else None
        self.background = Background(config.background)
        self.register_buffer("linear", torch.eye(3))
        self.register_buffer("shift", torch.zeros(3))
        self.distance = nn.Parameter(torch.zeros(len(self.grid.vertices)))
        self.offset = nn.Parameter(torch.zeros(len(self.grid.vertices), 3))
        sizes = [max(2, config.resolution // cubes + 1) for cubes in COARSER]
        self.coarse = nn.ParameterList(torch.zeros(1, 1, size, size, size) for size in sizes)
        self._topology: Topology | None = None
        if self.paint is not None:
            self.register_buffer("environment", torch.ones(HEIGHT, WIDTH, 3))
        self._light: LightMaps | None = None
        self.to(device)
        self.set_distance(distance.ellipsoid_distance(self.grid.vertices, config.initial_radii))

    @classmethod
    def fresh(cls, settings: Section, render: RenderConfig, device: torch.device | str) -> Self:
        """An ellipsoid around the origin, or the mesh of a file.

        Raises:
            ConfigError: the environment is neither a name nor a file that can be read.
        """
        config = MeshConfig.model_validate(settings)
        if config.file is not None:
            return cls.of_mesh(read_given(config), config, device)
        made = cls(config, device)
        made.light()
        return made

    @classmethod
    def of_mesh(cls, mesh: trimesh.Trimesh, config: MeshConfig, device: torch.device | str = "cpu") -> Self:
        """The shape of a given mesh, which lies in the unit ball; its colours are not taken.

        Raises:
            ConfigError: too small or too thin for the grid.
        """
        made = cls(config, device)
        made.light()
        made.set_distance(distance.mesh_distance(made.grid.vertices.cpu(), mesh).to(made.device))
        made.require_surface()
        return made

    @classmethod
    def converted(
        cls, source: Representation, settings: Section | None, render: RenderConfig, device: torch.device | str
    ) -> Self:
        """From what has a density: its surface, and its colours."""
        config = MeshConfig() if settings is None else MeshConfig.model_validate(settings)
        made = cls(conversion.settings_for(source, config), device)
        made.light()
        conversion.begin_as(made, source, shares_texture=config.texture is None)
        return made

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], settings: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Self:
        """See `Representation`; of the hash grid's implementations, and of rasterizers, as for a field.

        Where one of both cannot be used, the other one stays.
        """
        config = MeshConfig.model_validate(dict(settings))
        if config.rasterizer == "nvdiffrast" and not nvdiffrast_raster.is_usable(device):
            config = config.model_copy(update={"rasterizer": "auto"})
        try:
            made = cls(config, device)
        except ConfigError:
            texture = (config.texture or TextureConfig()).model_copy(update={"implementation": "auto"})
            made = cls(config.model_copy(update={"texture": texture}), device)
        made.load(state)
        return made

    def settings(self) -> dict[str, object]:
        """`MeshConfig` as plain values."""
        return self.config.model_dump(mode="json")

    def light(self) -> None:
        """Put a physically based material into the light that its settings ask for.

        Raises:
            ConfigError: the environment is neither a name nor a file that can be read.
        """
        if self.paint is not None:
            self.environment.copy_(environment_of(self.config.light))

    def light_maps(self) -> LightMaps:
        """The environment as material reflects it."""
        if self._light is None or not torch.equal(self._light.source, self.environment):
            self._light = light_maps(self.environment.clone())
        return self._light

    def unlit(self) -> Self:
        """See `Representation`; shares its parameters."""
        if self.paint is None:
            return self
        shown = copy.copy(self)
        shown.shows_base_color = True
        return shown

    @torch.no_grad()
    def set_distance(self, values: Float[Tensor, " v"]) -> None:
        """Take signed distances (v,) of the grid's vertices, in world units of the grid's frame."""
        for volume in self.coarse:
            volume.zero_()
        self.offset.zero_()
        self.distance.copy_((values / self.grid.cell).clamp(-FARTHEST, FARTHEST))

    def require_surface(self) -> None:
        """Refuse to be empty.

        Raises:
            ConfigError: it has no triangles.
        """
        if not self.inside().any():
            raise ConfigError(
                f"mesh.resolution={self.config.resolution}: what the mesh begins from is too thin for a grid of that "
                "many cubes, so nothing of it is left. Raise mesh.resolution, or begin from something solid."
            )

    def signed_distance(self) -> Float[Tensor, " v"]:
        """(v,) at the grid's vertices, in cubes' edges; outside at its border."""
        places = self.grid.vertices.view(1, -1, 1, 1, 3)
        total = self.distance
        for volume in self.coarse:
            total = total + nn.functional.grid_sample(volume, places, align_corners=True).flatten()
        return torch.where(self.grid.border, FARTHEST, total)

    @torch.no_grad()
    def inside(self) -> Tensor:
        """(v,) which of the grid's vertices are inside now."""
        return self.signed_distance() < 0

    def geometry(self) -> Geometry:
        """The surface, differentiable in distances and offsets."""
        signed = self.signed_distance()
        inside = signed.detach() < 0
        if self._topology is None or not torch.equal(self._topology.inside, inside):
            self._topology = topology(self.grid, inside)
        places = self.grid.vertices + MAX_OFFSET * self.grid.cell * self.offset.tanh()
        vertices = surface_vertices(self._topology, places, signed)
        return Geometry(self._topology, vertices, self.world_of(vertices))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """World units per unit of the grid's frame."""
        return torch.linalg.det(self.linear).pow(1 / 3)

    def own_of(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """(n, 3) points of the world in the frame of the grid."""
        return (points - self.shift) @ torch.linalg.inv(self.linear).T

    def world_of(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """(n, 3) points of the grid's frame in the world."""
        return points @ self.linear.T + self.shift

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
        """(n, 4) what the encoding says at points (n, 3) of the grid's frame; the first of the four means nothing."""
        return self.head(self.encoding(points, LOGITS))

    def albedo(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """(n, 3) in [0, 1] at points (n, 3) of the grid's frame."""
        return self.logits(points)[:, 1:].float().sigmoid()

    def seen(
        self, places: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], towards: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """Colours (n, 3) in its own light, if it has one.

        Args:
            places: on the surface, in the grid's frame.
            normals, towards: unit normals, and unit directions towards the camera, in the world.
        """
        if self.paint is None or self.shows_base_color:
            return self.albedo(places)
        facing, towards = self.turned(normals, inverse=True), self.turned(towards, inverse=True)
        material = Material(self.albedo(places), *self.paint.roughness_and_metallic(places))
        bent = self.paint.bent(facing, places, self.config.relief)
        return shade(material, bent, towards, self.light_maps())

    def turned(self, vectors: Float[Tensor, "n 3"], inverse: bool = False) -> Float[Tensor, "n 3"]:
        """Directions (n, 3) of the grid's frame in the world; or the inverse."""
        rotation = self.linear / self.scale
        return vectors @ (rotation if inverse else rotation.T)

    def density_and_color(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """A constant density inside, which falls to 0 over a cube's edge around the surface."""
        places = self.own_of(points)
        signed = self.grid.interpolate(self.signed_distance(), places, FARTHEST)
        return (0.5 - signed).clamp(0, 1) * (SOLID_DENSITY / self.scale), self.albedo(places)

    @torch.no_grad()
    def triangles(self) -> Triangles:
        """The surface, with the colours at its vertices."""
        shape = self.geometry()
        return Triangles(shape.world, shape.topology.faces, self.albedo(shape.own))

    @torch.no_grad()
    def surface_material(self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> SurfaceMaterial | None:
        """Of a physically based mesh."""
        if self.paint is None:
            return None
        places = self.own_of(points)
        bent = self.paint.bent(self.turned(normals, inverse=True), places, self.config.relief)
        return SurfaceMaterial(self.albedo(places), *self.paint.roughness_and_metallic(places), self.turned(bent))

    @torch.no_grad()
    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Around the vertices."""
        vertices = self.geometry().world
        if len(vertices) == 0:
            return torch.zeros_like(self.shift), torch.zeros_like(self.shift)
        return vertices.amin(dim=0).clamp(-1, 1), vertices.amax(dim=0).clamp(-1, 1)

    @torch.no_grad()
    def move(
        self, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, " 3"] | None = None, scale: float = 1.0
    ) -> None:
        """By a transform in buffers."""
        moved = self.shift @ rotation.T
        self.shift.copy_(scale * (moved if shift is None else moved + shift))
        self.linear.copy_(scale * rotation @ self.linear)

    @torch.no_grad()
    def render(
        self,
        cameras: Viewpoints,
        size: int,
        *,
        samples_per_ray: int = SAMPLES_PER_RAY,
        background: str | Float[Tensor, " 3"] = "white",
        with_normals: bool = False,
    ) -> Rendering:
        """Rasterised, with antialiased outlines, a few views at a time."""
        shape, placed = self.geometry(), cameras.to(self.device)
        parts = []
        for pose, fov in zip(
            placed.camera_to_world.split(VIEWS_AT_ONCE), placed.fov_y_deg.split(VIEWS_AT_ONCE), strict=True
        ):
            shown = self._show(shape, PosedCameras(pose, fov), size, size, ALBEDO)
            color = shown.color + (1 - shown.opacity[:, None]) * self._behind(background, shown.directions)
            parts.append((color.clamp(0, 1), shown.opacity, shown.depth, shown.normals))
        color, opacity, depth, normals = (torch.cat(values) for values in zip(*parts, strict=True))
        return Rendering(color, opacity, depth, normals if with_normals else None)

    def _behind(self, background: str | Tensor, directions: Tensor) -> Tensor:
        """(n, 3, height, width) background along directions (n, height, width, 3)."""
        if isinstance(background, Tensor):
            return background.to(directions)[None, :, None, None]
        if background == "white":
            return torch.ones_like(directions).permute(0, 3, 1, 2)
        if background != "own":
            raise ValueError(f"background={background!r}: expected 'white', 'own' or a colour tensor of shape (3,).")
        return self.background(directions.reshape(-1, 3)).view(directions.shape).permute(0, 3, 1, 2)

    def render_views(
        self,
        cameras: Viewpoints,
        size: int,
        *,
        background: Float[Tensor, "n 3"] | None = None,
        shading: Shading = ALBEDO,
        generator: torch.Generator | None = None,
        regularizers: RegularizerConfig | None = None,
        with_normals: bool = False,
    ) -> TrainingViews:
        """Rasterised, with antialiased outlines; nothing is drawn at random."""
        shape, device = self.geometry(), self.device
        shading = shading.map(lambda light: light.to(device))
        shown = self._show(shape, cameras.to(device), size, size, shading)
        behind = self._behind("own", shown.directions) if background is None else background.to(device)[..., None, None]
        color = (shown.color + (1 - shown.opacity[:, None]) * behind).clamp(0, 1)
        return TrainingViews(color, shown.opacity, shown.depth, shown.normals if with_normals else None)

    def render_pixels(
        self, pixels: ViewPixels, generator: torch.Generator | None = None, ready: torch.cuda.Event | None = None
    ) -> PixelRendering:
        """Of whole views, as outlines need a pixel's neighbours."""
        shown = self._show(self.geometry(), pixels.cameras.to(self.device), pixels.height, pixels.width, ALBEDO)
        return PixelRendering(pixels.pick(shown.color), pixels.pick(shown.opacity[:, None])[:, 0])

    def _show(self, shape: Geometry, cameras: Viewpoints, height: int, width: int, shading: Shading) -> _Shown:
        """Images of the surface, differentiable in it, in its colours and in the cameras."""
        projection = project(shape.world, cameras, height, width)
        raster = self._rasterize(projection, shape.topology.faces)
        layers, directions = self._layers(shape, raster, cameras, shading)
        layers = antialias(layers, raster, projection, shape.topology)
        if len(shape.topology.faces) == 0:
            layers = layers + 0 * self.distance.sum()
        color, depth, normals, opacity = layers.split([3, 1, 3, 1], dim=1)
        opacity = opacity[:, 0].clamp(0, 1)
        depth = depth[:, 0] / opacity.clamp(min=1e-6)
        return _Shown(color, opacity, depth, nn.functional.normalize(normals, dim=1), directions)

    def _rasterize(self, projection: Projection, faces: Tensor) -> Raster:
        by_nvdiffrast = self.config.rasterizer == "nvdiffrast" and faces.is_cuda
        return nvdiffrast_raster.rasterize(projection, faces) if by_nvdiffrast else rasterize(projection, faces)

    def _layers(
        self, shape: Geometry, raster: Raster, cameras: Viewpoints, shading: Shading
    ) -> tuple[Float[Tensor, "n 8 height width"], Float[Tensor, "n height width 3"]]:
        """Colour, depth, normals and opacity of each pixel's centre, 0 where there is nothing; and its direction."""
        count, height, width = raster.faces.shape
        origins, directions = cameras.rays(height, width)
        where = (raster.faces.flatten() >= 0).nonzero()[:, 0]
        corners = shape.topology.faces[raster.faces.flatten()[where]]
        rays = origins.reshape(-1, 3)[where], directions.reshape(-1, 3)[where]
        weights, depth = meet(shape.world[corners], *rays)
        weights = weights.clamp(0, 1)[..., None]
        places = (weights * shape.own[corners]).sum(dim=1)
        smooth = own.vertex_normals(shape.world, shape.topology.faces)
        normals = nn.functional.normalize((weights * smooth[corners]).sum(dim=1), dim=-1)
        if shading.needs_normals:
            points = rays[0] + depth[:, None] * rays[1]
            color = shading.shade(self.albedo(places), normals, points, where // (height * width))
        else:
            color = self.seen(places, normals, -rays[1])
        values = torch.cat([color, depth[:, None], normals, torch.ones_like(depth)[:, None]], dim=1)
        layers = values.new_zeros(count * height * width, values.shape[1]).index_copy(0, where, values)
        return layers.view(count, height, width, -1).permute(0, 3, 1, 2), directions

    def _texture(self) -> list[nn.Parameter]:
        return [*self.encoding.parameters(), *self.head.parameters()]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Distances, offsets, colours, and the background where it learns."""
        config, behind = self.config, list(self.background.parameters())
        groups = [
            ParameterGroup("distance", [self.distance, *self.coarse], config.distance_rate, shapes=True),
            ParameterGroup("offset", [self.offset], config.offset_rate, shapes=True),
            ParameterGroup("texture", self._texture(), config.texture_rate, shapes=False),
        ]
        if self.paint is not None:
            rate = config.texture_rate * config.material_rate
            groups.append(ParameterGroup("material", list(self.paint.parameters()), rate, shapes=False))
        return [*groups, ParameterGroup("background", behind, shapes=False)] if behind else groups

    def go_on(self, settings: Section) -> None:
        """Rates and the mesh's own regularisers."""
        self.config = gone_on(self.kind, self.config, MeshConfig.model_validate(settings))
        if self.config.rasterizer == "nvdiffrast":
            nvdiffrast_raster.require(self.device)

    def shape_losses(self, regularizers: RegularizerConfig, generator: torch.Generator) -> Losses:
        """The mesh's own, by its settings, and the smoothness of its colours."""
        config, parts = self.config, {}
        shape = self.geometry()
        if len(shape.topology.faces) > 0:
            vertices = shape.own / self.grid.cell
            if config.laplacian > 0:
                parts["laplacian"] = (config.laplacian, own.laplacian(vertices, shape.topology))
            if config.normal_consistency > 0:
                value = own.normal_consistency(vertices, shape.topology)
                parts["normal_consistency"] = (config.normal_consistency, value)
            if config.sign_changes > 0:
                value = own.sign_changes(self.signed_distance(), shape.topology)
                parts["sign_changes"] = (config.sign_changes, value)
        if regularizers.smoothness > 0:
            value = smoothness(self, generator)
            if self.paint is not None:
                value = value + self.paint.smoothness(generator)
            parts["smoothness"] = (regularizers.smoothness, value)
        return parts

    def figures(self) -> dict[str, float]:
        """How many triangles there are."""
        return {"triangles": 0.0 if self._topology is None else float(len(self._topology.faces))}
