"""Signed distances to begin from: of an ellipsoid, of a volume of densities, of given triangles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage import measure
from torch import Tensor

from dreambooth3d.nerf.field.parts import large_parts

NEAR_CELLS = 1.5
"""Voxels from a surface up to which its planes say how far a point is from it; beyond, its points do."""
SAMPLES = 200_000
PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class SurfaceSamples:
    """Points of a surface, dense against what is measured.

    Attributes:
        points: (k, 3).
        normals: (k, 3) of unit length, to either side.
        spacing: of the points, about.
    """

    points: NDArray[np.floating]
    normals: NDArray[np.floating]
    spacing: float

    def distance(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """(n,) unsigned distance of places (n, 3): from the plane of the nearest point where that is close."""
        wanted = places.cpu().numpy()
        far, nearest = KDTree(self.points).query(wanted)
        plane = np.abs(((wanted - self.points[nearest]) * self.normals[nearest]).sum(axis=1))
        found = np.where(far < NEAR_CELLS * self.spacing, np.minimum(plane, far), far)
        return torch.from_numpy(found).to(places)


def ellipsoid_distance(places: Float[Tensor, "n 3"], radii: tuple[float, float, float]) -> Float[Tensor, " n"]:
    """(n,) distance, to first order, of places (n, 3) from an ellipsoid around the origin, negative inside."""
    axes = torch.tensor(radii).to(places)
    level = (places / axes).norm(dim=1)
    slope = (places / axes.square()).norm(dim=1) / level.clamp(min=1e-6)
    return (level - 1) / slope.clamp(min=1e-6)


@dataclass(frozen=True)
class DensityVolume:
    """Densities at the points of a regular grid over [-1, 1]^3.

    Attributes:
        values: (size, size, size), indexed x, y, z.
    """

    values: NDArray[np.floating]

    def distance(self, places: Float[Tensor, "n 3"], threshold: float) -> Float[Tensor, " n"] | None:
        """(n,) signed distance of places (n, 3) from where the density crosses a threshold; None where it is nowhere.

        Small parts are left out, and cavities filled.
        """
        solid, spacing = self._solid(threshold), 2.0 / (len(self.values) - 1)
        if solid is None:
            return None
        vertices, _, normals, _ = measure.marching_cubes(np.pad(solid, 1), level=threshold)
        samples = SurfaceSamples((vertices - 1) * spacing - 1, normals, spacing)
        inside = _read(solid, places) > threshold
        return torch.where(inside, -1.0, 1.0) * samples.distance(places)

    def _solid(self, threshold: float) -> NDArray[np.floating] | None:
        """Densities without floaters and cavities, cut off so that interpolation stays near the middle of cells."""
        above = self.values > threshold
        if not above.any():
            return None
        kept = ndimage.binary_fill_holes(large_parts(above))
        solid = self.values.clip(0, 2 * threshold)
        solid[above & ~kept] = 0
        solid[kept & ~above] = 2 * threshold
        return solid


def _read(volume: NDArray[np.floating], places: Tensor) -> Tensor:
    """(n,) values at places (n, 3) of a volume over [-1, 1]^3 that is indexed x, y, z."""
    layers = torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 1, 0)))[None, None].to(places)
    return torch.nn.functional.grid_sample(layers, places.view(1, -1, 1, 1, 3), align_corners=True).flatten()


def mesh_distance(places: Float[Tensor, "n 3"], mesh: trimesh.Trimesh) -> Float[Tensor, " n"]:
    """(n,) distance of places (n, 3) from a mesh's surface, negative where it winds around a place."""
    sampled = trimesh.sample.sample_surface(mesh, SAMPLES, seed=0)
    points, faces = np.asarray(sampled[0]), np.asarray(sampled[1])
    samples = SurfaceSamples(points, mesh.face_normals[faces], math.sqrt(mesh.area / SAMPLES))
    return torch.where(inside_mesh(places, mesh), -1.0, 1.0) * samples.distance(places)


def inside_mesh(places: Float[Tensor, "n 3"], mesh: trimesh.Trimesh) -> Bool[Tensor, " n"]:
    """(n,) whether a mesh winds around places (n, 3), either way: its triangles may all face inwards."""
    low, high = (torch.from_numpy(np.array(corner)).to(places) for corner in mesh.bounds)
    inside = ((places > low) & (places < high)).all(dim=1)
    vertices = torch.from_numpy(np.array(mesh.vertices)).to(places)
    corners = vertices[torch.from_numpy(np.array(mesh.faces)).to(places.device)]
    inside[inside.clone()] = winding_numbers(places[inside], corners).abs() > 0.5
    return inside


def winding_numbers(places: Float[Tensor, "n 3"], corners: Float[Tensor, "f 3 3"]) -> Float[Tensor, " n"]:
    """(n,) how often triangles with corners (f, 3, 3) wind around places (n, 3): about 1 inside, 0 outside.

    It also tells the inside of a surface with holes, or of parts that run through each other.

    Source: Jacobson et al. 2013, "Robust Inside-Outside Segmentation using Generalized Winding Numbers", eq. 6.
    """
    found = [
        _solid_angles(part, corners).sum(dim=1) / (4 * math.pi)
        for part in places.split(max(1, PAIRS_AT_ONCE // max(1, len(corners))))
    ]
    return torch.cat(found) if found else places.new_zeros(0)


def _solid_angles(places: Tensor, corners: Tensor) -> Tensor:
    """(n, f) signed solid angles of triangles seen from places.

    Source: Van Oosterom and Strackee 1983, "The Solid Angle of a Plane Triangle".
    """
    a, b, c = (corners[None, :, corner] - places[:, None] for corner in range(3))
    la, lb, lc = (side.norm(dim=-1) for side in (a, b, c))
    top = (a * torch.linalg.cross(b, c)).sum(-1)
    bottom = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return 2 * torch.atan2(top, bottom)


def triangles_mesh(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> trimesh.Trimesh:
    """Triangles as trimesh keeps them, vertices in their order."""
    return trimesh.Trimesh(vertices.detach().cpu().numpy(), faces.cpu().numpy(), process=False)
