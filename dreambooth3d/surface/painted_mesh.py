"""A mesh that the user gives, whose shape stays as it is and whose colours are learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor
from trimesh.visual import TextureVisuals

from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import RegularizerConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.painted import PaintedConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.regularizers import smoothness
from dreambooth3d.representation.going_on import gone_on
from dreambooth3d.representation.interface import Losses, ParameterGroup, Representation, Triangles
from dreambooth3d.surface.files import read_given
from dreambooth3d.surface.marching import Topology, given_topology
from dreambooth3d.surface.surface_mesh import Geometry, SurfaceMesh

_UNUSED = 8
"""Cubes per side of the grid that the mesh's shape does not come from."""
_SHAPES = ("distance", "offset")


class PaintedMesh(SurfaceMesh):
    """The triangles of a file, rasterised as those of a surface mesh are, with colours in space.

    Colours are a function of the place, so that no seam of a UV map shows in them, triangles that share texels are
    painted apart, and a texture of any size can be baked.

    See `Representation` for what is not described here.

    Args:
        config: colours and background.
        mesh: in the unit ball.
        device: where it lives.

    Source: Metzer et al. 2022, "Latent-NeRF for Shape-Guided Generation of 3D Shapes and Textures", section 3.3, there
    with an image over the UV map.
    """

    kind: ClassVar[str] = "painted"
    fixed_size: ClassVar[bool] = True
    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    uv: Float[Tensor, "k 2"]

    def __init__(self, config: PaintedConfig, mesh: trimesh.Trimesh, device: torch.device | str = "cpu") -> None:
        looks = {"texture": config.texture, "background": config.background, "texture_rate": config.texture_rate}
        super().__init__(MeshConfig(resolution=_UNUSED, **looks), device)
        self.painted_config = config
        for parameter in (self.distance, self.offset, *self.coarse):
            parameter.requires_grad_(False)
        uv = getattr(mesh.visual, "uv", None)
        self.register_buffer("vertices", torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32))
        self.register_buffer("faces", torch.tensor(np.asarray(mesh.faces), dtype=torch.long))
        self.register_buffer("uv", torch.tensor(np.asarray([] if uv is None else uv), dtype=torch.float32).view(-1, 2))
        self._shape: tuple[Topology, Tensor] | None = None
        self.to(device)

    @classmethod
    def fresh(cls, settings: Section, render: RenderConfig, device: torch.device | str) -> Self:
        """The mesh of the file, in no particular colour."""
        config = PaintedConfig.model_validate(settings)
        if config.file is None:
            raise ConfigError("representation: painted needs the mesh that is painted. Set painted.file.")
        return cls(config, read_given(config), device)

    @classmethod
    def of_mesh(cls, mesh: trimesh.Trimesh, config: PaintedConfig, device: torch.device | str = "cpu") -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]  # settings of its own
        """A given mesh, which lies in the unit ball."""
        return cls(config, mesh, device)

    @classmethod
    def converted(
        cls, source: Representation, settings: Section | None, render: RenderConfig, device: torch.device | str
    ) -> Self:
        """Of nothing else."""
        raise ConfigError(
            f"representation: painted is a mesh that is given, and this stage goes on from {source.kind}. Set it in "
            "init_nerf, and leave representation out here."
        )

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], settings: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Self:
        """See `Representation`; of the hash grid's implementations as for a field."""
        config = PaintedConfig.model_validate(dict(settings))
        mesh = trimesh.Trimesh(state["vertices"].cpu().numpy(), state["faces"].cpu().numpy(), process=False)
        if len(state["uv"]) > 0:
            mesh.visual = TextureVisuals(uv=state["uv"].cpu().numpy())
        try:
            made = cls(config, mesh, device)
        except ConfigError:
            texture = config.texture.model_copy(update={"implementation": "auto"})
            made = cls(config.model_copy(update={"texture": texture}), mesh, device)
        made.load(state)
        return made

    def go_on(self, settings: Section) -> None:
        """The rate of its colours."""
        self.painted_config = gone_on(self.kind, self.painted_config, PaintedConfig.model_validate(settings))
        self.config = self.config.model_copy(update={"texture_rate": self.painted_config.texture_rate})

    def settings(self) -> dict[str, object]:
        """`PaintedConfig` as plain values."""
        return self.painted_config.model_dump(mode="json")

    def mark_changed(self) -> None:
        """See `Representation`."""
        self._shape = None

    def geometry(self) -> Geometry:
        """The given triangles, their vertices joined where they lie at one place, as they may at a UV map's seams."""
        if self._shape is None:
            places, joined = torch.unique(self.vertices, dim=0, return_inverse=True)
            topology = given_topology(joined[self.faces], len(places))
            self._shape = topology, places
        topology, places = self._shape
        return Geometry(topology, places, self.world_of(places))

    def density_and_color(self, points: Float[Tensor, "n 3"]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Nothing: a given surface need not be closed, and the mesh stays as it stands."""
        return

    @torch.no_grad()
    def triangles(self) -> Triangles:
        """Those of the file, in its order."""
        colors = self.albedo(self.vertices)
        uv = self.uv if len(self.uv) > 0 else None
        return Triangles(self.world_of(self.vertices), self.faces, colors, given=True, uv=uv)

    @torch.no_grad()
    def albedo_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """See `Representation`."""
        return self.albedo(self.own_of(points))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Colours, and the background where it learns."""
        return [group for group in super().parameter_groups() if group.name not in _SHAPES]

    def shape_losses(self, regularizers: RegularizerConfig, generator: torch.Generator) -> Losses:
        """The smoothness of its colours."""
        weight = regularizers.smoothness
        return {"smoothness": (weight, smoothness(self, generator))} if weight > 0 else {}

    def figures(self) -> dict[str, float]:
        """How many triangles there are."""
        return {"triangles": float(len(self.faces))}
