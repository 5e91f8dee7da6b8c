"""A coarse mesh that the user gives steers where a field is solid."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import grid_sample

from dreambooth3d.config.sketch import SketchConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.representation.interface import Losses, Representation
from dreambooth3d.surface.distance import inside_mesh
from dreambooth3d.surface.files import read_given

CELLS = 80
"""Per side of the grid of signed distances; what is thinner than one is lost."""
STEP = 0.05
"""Length in world units over which a density becomes an opacity."""
MOST_TRIANGLES = 2000
"""Of a sketch, which need not be finer: each point in its box looks at all of them."""


class Sketch:
    """The signed distance from a sketch's surface, and how far a field differs from its inside.

    Args:
        config: which mesh, and how strictly it is meant.
        device: where the field learns.

    Raises:
        ConfigError: as for `read_mesh`, or nothing is inside the mesh.

    Source: Metzer et al. 2022, "Latent-NeRF for Shape-Guided Generation of 3D Shapes and Textures", eq. 3.
    """

    def __init__(self, config: SketchConfig, device: torch.device | str) -> None:
        self.config, self.device = config, torch.device(device)
        axis = torch.linspace(-1, 1, CELLS + 1)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        places = torch.stack([x, y, z], dim=-1)
        inside = inside_mesh(places.view(-1, 3), _coarse(read_given(config))).view(places.shape[:3]).numpy()
        if not inside.any():
            raise ConfigError(
                f"sketch.file: {config.file} has no inside. Close its surface, and let its triangles face outwards."
            )
        # To half a cell: the surface lies between the points inside and those outside.
        cells = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
        distance = (cells - np.sign(cells) / 2) * (2 / CELLS)
        self.distance = torch.tensor(distance, dtype=torch.float32, device=self.device)[None, None]

    def signed_distance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """(n,) distance of points (n, 3) from the sketch's surface in world units, negative inside."""
        return grid_sample(self.distance, points.view(1, -1, 1, 1, 3), align_corners=True).flatten()

    def loss(self, asset: Representation, points: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
        """Mean cross entropy at points (n, 3) between opacity and the inside, which counts little near the surface.

        Raises:
            ConfigError: the asset has no density.
        """
        found = asset.density_and_color(points)
        if found is None:
            raise ConfigError(f"sketch.file steers a field, and this stage trains {asset.kind}. Remove sketch.file.")
        signed, optical = self.signed_distance(points), found[0] * STEP
        # The logarithms of opacity and transparency, without the detour over either.
        solid, clear = -torch.log(-torch.expm1(-optical.clamp(min=1e-6))), optical
        strictness = 1 - torch.exp(-signed.square() / (2 * self.config.leniency**2))
        return (strictness * torch.where(signed < 0, solid, clear)).mean()

    def losses(self, asset: Representation, generator: torch.Generator) -> Losses:
        """The loss at random points of the ball; generator on the CPU."""
        drawn = torch.randn(self.config.points, 3, generator=generator)
        radius = torch.rand(self.config.points, 1, generator=generator).pow(1 / 3)
        points = radius * torch.nn.functional.normalize(drawn, dim=-1)
        return {"sketch": (self.config.weight, self.loss(asset, points.to(self.device)))}


def sketch_of(config: SketchConfig, device: torch.device | str) -> Sketch | None:
    """The sketch that a stage follows, if it follows one."""
    return Sketch(config, device) if config.file is not None and config.weight > 0 else None


def _coarse(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh in few triangles."""
    if len(mesh.faces) <= MOST_TRIANGLES:
        return mesh
    return mesh.simplify_quadric_decimation(face_count=MOST_TRIANGLES)
