"""Pictures of a mesh by ray casting, for measuring it: its base colours, unlit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.export.mesh import Mesh


@dataclass(frozen=True)
class Pictures:
    """Pictures of an asset on any background.

    Attributes:
        light: (n, 3, height, width) colour times opacity: the picture on black.
        opacity: (n, height, width) in [0, 1].
    """

    light: Float[Tensor, "n 3 height width"]
    opacity: Float[Tensor, "n height width"]

    def on(self, background: float) -> Float[Tensor, "n 3 height width"]:
        """(n, 3, height, width) in [0, 1] on a grey: 0 is black, 1 is white."""
        return (self.light + (1 - self.opacity)[:, None] * background).clamp(0, 1)


class MeshCaster:
    """Casts rays at one mesh, by Embree.

    Args:
        mesh: in world coordinates.
    """

    def __init__(self, mesh: Mesh) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self.mesh = mesh
        self._scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self._scene, mesh.vertices[mesh.faces].astype(np.float32))

    def first_hits(
        self, origins: Float[ndarray, "rays 3"], directions: Float[ndarray, "rays 3"]
    ) -> tuple[Int[ndarray, " rays"], Float[ndarray, "rays 3"]]:
        """The triangle (rays,) that each ray meets first, -1 for none, and where in it, as weights of its corners."""
        found = self._scene.run(origins.astype(np.float32), directions.astype(np.float32), output=1)
        weights = np.stack([1 - found["u"] - found["v"], found["u"], found["v"]], axis=1)
        return np.asarray(found["primID"]), weights

    def render(self, cameras: Cameras, size: int, supersample: int = 2) -> Pictures:
        """Square pictures of n cameras, `supersample`^2 rays to a pixel."""
        pairs = [self._picture(cameras[[index]], size, supersample) for index in range(len(cameras))]
        light, opacity = (torch.stack(values) for values in zip(*pairs, strict=True))
        return Pictures(light, opacity)

    def masks(self, cameras: Cameras, size: int, supersample: int = 1) -> Float[Tensor, "n size size"]:
        """(n, size, size) share of each pixel that the mesh covers."""
        found = [self.hits(cameras[[index]], size * supersample)[0] >= 0 for index in range(len(cameras))]
        return torch.cat([_reduced(hit[:, None].astype(np.float32), size, supersample) for hit in found])

    def hits(self, camera: Cameras, size: int) -> tuple[Int[ndarray, " rays"], Float[ndarray, "rays 3"]]:
        """`first_hits` of the size x size rays of one camera, row by row."""
        origins, directions = (rays.reshape(-1, 3).cpu().numpy() for rays in camera.to("cpu").rays(size, size))
        return self.first_hits(origins, directions)

    def _picture(self, camera: Cameras, size: int, supersample: int) -> tuple[Tensor, Tensor]:
        triangle, weights = self.hits(camera, size * supersample)
        hit = triangle >= 0
        values = np.zeros((len(hit), 4), np.float32)
        values[hit, :3] = self.mesh.colors_at(triangle[hit], weights[hit])
        values[hit, 3] = 1
        picture = _reduced(values, size, supersample)
        return picture[:3], picture[3]


def _reduced(values: Float[ndarray, "rays channels"], size: int, factor: int) -> Float[Tensor, "channels size size"]:
    """Means over the rays of each pixel."""
    grid = values.reshape(size, factor, size, factor, -1).mean(axis=(1, 3))
    return torch.from_numpy(np.ascontiguousarray(grid.transpose(2, 0, 1)))
