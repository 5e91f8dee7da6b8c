"""The surface of an asset: where its density crosses a threshold, in few triangles."""

from __future__ import annotations

import fast_simplification
import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage
from skimage import measure

from dreambooth3d.cameras import Cameras
from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.export.casting import MeshCaster, Pictures
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.source import DensityAndColor
from dreambooth3d.nerf.field.parts import large_parts
from dreambooth3d.representation.interface import Triangles

BOUND = 1.0
CHUNK_POINTS = 1 << 18
FIRST_THRESHOLD = 8.0
_HALVINGS = (1.0, 0.5, 0.25)
"""Steps of the search for a threshold, as powers of 2."""
LIMITS = (2.0**-6, 2.0**12)


@torch.no_grad()
def sample_density(
    density_and_color: DensityAndColor, resolution: int, device: torch.device | str = "cpu"
) -> Float[ndarray, "x y z"]:
    """(resolution, resolution, resolution) float32 densities over [-1, 1]^3, indexed x, y, z."""
    axis = torch.linspace(-BOUND, BOUND, resolution, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    parts = [density_and_color(chunk)[0].reshape(-1).float().cpu() for chunk in points.split(CHUNK_POINTS)]
    return torch.cat(parts).reshape(resolution, resolution, resolution).numpy()


def surface_at(density: Float[ndarray, "x y z"], threshold: float) -> Mesh:
    """The surface where a sampled density crosses a threshold, without colours.

    Parts smaller than 3 % of the largest one (floaters) and cavities that no camera can see are left out. The surface
    is closed, also where the field touches the cube [-1, 1]^3.

    Args:
        density: over the cube [-1, 1]^3, as `sample_density` gives it.
        threshold: density of the surface, in inverse world units.

    Raises:
        EmptyFieldError: the density is nowhere above the threshold.

    Source: marching cubes as in Lewiner et al. (2003), by scikit-image.
    """
    solid = _largest_parts(density, threshold)
    spacing = 2 * BOUND / (len(density) - 1)
    # scikit-image names the direction for volumes indexed z, y, x; this one is x, y, z, which mirrors the winding.
    vertices, faces, _, _ = measure.marching_cubes(
        np.pad(solid, 1), level=threshold, gradient_direction="ascent", allow_degenerate=False
    )
    # One cell of padding closes the surface at the border of the cube.
    return _with_normals((vertices - 1) * spacing - BOUND, faces)


def own_surface(triangles: Triangles) -> Mesh:
    """The triangles of an asset that is made of them, without colours.

    Raises:
        EmptyFieldError: it has none.
    """
    if len(triangles.faces) == 0:
        raise EmptyFieldError("mesh: it has no triangles, so nothing can be exported. Train longer, or another seed.")
    vertices, faces = triangles.vertices.detach().float().cpu().numpy(), triangles.faces.cpu().numpy()
    # A given mesh may have several vertices at one place, whose normals are one all the same.
    places, joined = np.unique(vertices, axis=0, return_inverse=True) if triangles.given else (vertices, None)
    shape = trimesh.Trimesh(places, faces if joined is None else joined.reshape(-1)[faces], process=False)
    normals = _unit_normals(shape)
    uv = None if triangles.uv is None else triangles.uv.float().cpu().numpy()
    return Mesh(vertices, faces.astype(np.int64), normals if joined is None else normals[joined.reshape(-1)], uv=uv)


def decimated(mesh: Mesh, max_triangles: int) -> Mesh:
    """A mesh without colours in at most that many triangles; as it is where it has no more.

    Source: quadric error metrics (Garland and Heckbert 1997), by fast_simplification.
    """
    if len(mesh.faces) <= max_triangles:
        return mesh
    vertices, faces = fast_simplification.simplify(
        mesh.vertices, mesh.faces.astype(np.int32), target_count=max_triangles
    )
    return _with_normals(vertices, faces)


def agreement(mesh: Mesh, cameras: Cameras, pictures: Pictures) -> float:
    """Mean intersection over union of a mesh's silhouettes with those of pictures from the same cameras."""
    masks = MeshCaster(mesh).masks(cameras, pictures.opacity.shape[-1]) > 0.5
    seen = pictures.opacity > 0.5
    both, either = ((masks & seen).flatten(1).sum(1), (masks | seen).flatten(1).sum(1))
    return float(torch.where(either > 0, both / either.clamp(min=1), 1.0).mean())


def silhouette_threshold(density: Float[ndarray, "x y z"], cameras: Cameras, pictures: Pictures) -> float:
    """The density, in inverse world units, whose surface has the silhouettes that the asset's own pictures have.

    Found by climbing from a usual value, in ever smaller steps of its logarithm.

    Args:
        density: as `sample_density` gives it.
        cameras, pictures: the asset as it is seen.

    Raises:
        EmptyFieldError: the density is nothing but small, or not finite.
    """
    scores: dict[float, float] = {}

    def score(threshold: float) -> float:
        if threshold not in scores:
            solid = LIMITS[0] <= threshold < min(density.max(), LIMITS[1])
            scores[threshold] = agreement(surface_at(density, threshold), cameras, pictures) if solid else -1.0
        return scores[threshold]

    if not density.max() > LIMITS[0]:
        surface_at(density, LIMITS[0])
    best = min(FIRST_THRESHOLD, 2.0 ** np.floor(np.log2(density.max() / 2)))
    for step in _HALVINGS:
        while (better := max(best * 2**-step, best, best * 2**step, key=score)) != best:
            best = better
    return float(best)


def _with_normals(vertices: ndarray, faces: ndarray) -> Mesh:
    mesh = trimesh.Trimesh(vertices, faces, process=True)
    return Mesh(
        np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces, dtype=np.int64), _unit_normals(mesh)
    )


def _unit_normals(mesh: trimesh.Trimesh) -> Float[ndarray, "v 3"]:
    """(v, 3) float32; at a fold, whose triangles' normals cancel out, that of the largest triangle there."""
    normals = np.asarray(mesh.vertex_normals, dtype=np.float32)
    lost = np.linalg.norm(normals, axis=1) < 0.5  # trimesh leaves zeros there
    if lost.any():
        largest = np.full(len(normals), -1)
        order = np.argsort(mesh.area_faces)
        largest[mesh.faces[order].reshape(-1)] = np.repeat(order, 3)  # of several values the last one stays
        normals[lost] = mesh.face_normals[largest[lost]]
        normals[lost & (np.linalg.norm(normals, axis=1) < 0.5)] = (0, 0, 1)
    return normals


def _largest_parts(density: Float[ndarray, "x y z"], threshold: float) -> Float[ndarray, "x y z"]:
    """Densities with small floating parts emptied, hidden cavities filled, and clipped to twice the threshold.

    The clip keeps the interpolation between an empty and a very dense cell near their middle, instead of pressing the
    surface onto the empty one, which would show the grid as steps.
    """
    if not np.isfinite(density).all():
        raise EmptyFieldError("radiance field: its density is not finite, so it has no mesh. Train with another seed.")
    inside = density > threshold
    if not inside.any():
        raise EmptyFieldError(
            f"radiance field: no density exceeds {threshold:g} (the largest is {density.max():.3g}), so there is no"
            " surface for a mesh. Lower export_asset.mesh_threshold, or train longer."
        )
    kept = large_parts(inside)
    solid = np.clip(density, 0, 2 * threshold)
    solid[inside & ~kept] = 0
    cavities = ndimage.binary_fill_holes(kept) & ~kept
    solid[cavities] = 2 * threshold
    return solid
