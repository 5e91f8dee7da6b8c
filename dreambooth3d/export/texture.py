"""Colours of a mesh, seen in its asset: a texture over an atlas, or one colour per vertex."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
import xatlas
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import ndimage, sparse
from scipy.sparse.linalg import lsqr

from dreambooth3d.cameras import Cameras
from dreambooth3d.export.casting import MeshCaster, Pictures
from dreambooth3d.export.material import with_material
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.source import Paint, Source
from dreambooth3d.export.surface import CHUNK_POINTS

GUTTER = 4
"""Texels between charts, and how far their colours are continued over their edges."""
_SHELL_STEPS = 12
_DAMPING, _ITERATIONS = 0.3, 40
_UV_SLACK, _MOST_SHARED = 1e-4, 1.1
logger = logging.getLogger(__name__)


def with_vertex_colors(mesh: Mesh, source: Source, depth: float, cameras: Cameras, pictures: Pictures) -> Mesh:
    """A mesh with one colour per vertex, as `textured` finds them."""
    colors = seen_colors(source, mesh.vertices, mesh.normals, depth)
    correction = view_correction(mesh, replace(mesh, colors=colors), cameras, pictures)
    return replace(mesh, colors=(colors + correction).clip(0, 1))


def textured(mesh: Mesh, source: Source, size: int, depth: float, cameras: Cameras, pictures: Pictures) -> Mesh:
    """A mesh with a texture, baked from its asset.

    What a ray sees just at the surface is not yet what a picture shows, where an asset is soft: there colours from
    before and behind are in it. So the difference to pictures is made up for, smoothly. A material is taken as it is.

    Args:
        mesh: without colours.
        source: the asset.
        size: of the texture, in texels per side.
        depth: how far around the surface its colour is looked for, in world units.
        cameras, pictures: the asset as it is seen.

    Source: the atlas is by xatlas (after Thekla's).
    """
    unwrapped = unwrap(mesh, size)
    places = texel_places(unwrapped, size)
    corners = mesh.faces[places.triangle]
    if source.material is not None:
        own = unwrapped.faces[places.triangle]
        return with_material(
            unwrapped, own, places.weights, lambda values: _image(values, places), source.material, source.device
        )
    points, normals = (np.einsum("nk,nkc->nc", places.weights, each[corners]) for each in (mesh.vertices, mesh.normals))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    colors = seen_colors(source, points, normals, depth)
    first = replace(unwrapped, texture=_image(colors, places))
    correction = view_correction(mesh, first, cameras, pictures)
    colors = (colors + np.einsum("nk,nkc->nc", places.weights, correction[corners])).clip(0, 1)
    return replace(unwrapped, texture=_image(colors, places))


def painted(mesh: Mesh, paint: Paint, size: int) -> Mesh:
    """A given mesh with a texture over its own UV map, or over an atlas where that cannot hold one.

    Args:
        mesh: as it was given.
        paint: colours at points of its surface, on any device.
        size: of the texture, in texels per side.
    """
    if mesh.uv is None or (places := own_places(mesh, size)) is None:
        mesh = unwrap(mesh, size)
        places = texel_places(mesh, size)
    points = np.einsum("nk,nkc->nc", places.weights, mesh.vertices[mesh.faces[places.triangle]])
    return replace(mesh, texture=_image(paint_at(paint, points), places))


def paint_at(paint: Paint, points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    """Colours (n, 3) in [0, 1] at points (n, 3) of a painted surface."""
    chunks = torch.as_tensor(points, dtype=torch.float32).split(CHUNK_POINTS)
    return torch.cat([paint(chunk).float().cpu() for chunk in chunks]).numpy()


def own_places(mesh: Mesh, size: int) -> TexelPlaces | None:
    """Where a mesh's texels lie by its own UV map; None, with a line in the log, where texels are outside or shared."""
    assert mesh.uv is not None
    beyond = np.abs(mesh.uv - mesh.uv.clip(0, 1)).max() > _UV_SLACK
    places = texel_places(mesh, size)
    covered = places.inside.mean()
    corners = mesh.uv[mesh.faces].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    wanted = 0.5 * np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum()
    if not beyond and 0 < wanted <= _MOST_SHARED * covered:
        return places
    reason = "leaves the image" if beyond else "puts several triangles on the same texels" if wanted > 0 else "is empty"
    logger.warning("the mesh's own UV map %s, so it gets another one", reason)
    return None


def view_correction(mesh: Mesh, painted: Mesh, cameras: Cameras, pictures: Pictures) -> Float[ndarray, "v 3"]:
    """What to add to the colours at vertices (v, 3), so that a mesh looks more like pictures of its asset.

    Args:
        mesh: whose vertices are meant.
        painted: the same triangles with colours.
        cameras, pictures: the asset as it is seen; pixels count by their opacity.

    Source: damped least squares, by LSQR (Paige and Saunders 1982).
    """
    caster, size = MeshCaster(mesh), pictures.opacity.shape[-1]
    corners, shares, missing = [], [], []
    for index in range(len(cameras)):
        triangle, weights = caster.hits(cameras[[index]], size)
        hit = triangle >= 0
        opacity = pictures.opacity[index].reshape(-1, 1).numpy()[hit]
        light = pictures.light[index].permute(1, 2, 0).reshape(-1, 3).numpy()[hit]
        corners.append(mesh.faces[triangle[hit]])
        shares.append(weights[hit] * opacity)
        missing.append(light.clip(0, opacity) - painted.colors_at(triangle[hit], weights[hit]) * opacity)
    columns, values, target = (np.concatenate(each) for each in (corners, shares, missing))
    rows = np.repeat(np.arange(len(columns)), 3)
    matrix = sparse.csr_matrix((values.ravel(), (rows, columns.ravel())), shape=(len(columns), len(mesh.vertices)))
    solved = [lsqr(matrix, target[:, channel], damp=_DAMPING, iter_lim=_ITERATIONS)[0] for channel in range(3)]
    return np.stack(solved, axis=1).astype(np.float32)


def _image(colors: Float[ndarray, "texels 3"], places: TexelPlaces) -> ndarray:
    """(size, size, 3) uint8 with the colours at their places, and between charts those of the nearest."""
    image = np.zeros((*places.inside.shape, 3), np.float32)
    image[places.inside] = colors
    return (_continued(image, places.inside) * 255).round().astype(np.uint8)


def unwrap(mesh: Mesh, size: int) -> Mesh:
    """The mesh with an atlas that needs no more than size x size texels; vertices on its seams occur twice."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices, mesh.faces.astype(np.uint32), mesh.normals)
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding = size, GUTTER
    atlas.generate(xatlas.ChartOptions(), pack)
    origin, faces, uv = atlas[0]
    # Its v runs downwards, with the image's rows.
    upward = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)
    return Mesh(mesh.vertices[origin], faces.astype(np.int64), mesh.normals[origin], uv=upward)


@dataclass(frozen=True)
class TexelPlaces:
    """Where on a mesh its texels lie.

    Attributes:
        inside: (size, size) whether a chart covers the texel's middle.
        triangle: (texels,) of each such texel, row by row.
        weights: (texels, 3) of that triangle's corners.
    """

    inside: Bool[ndarray, "size size"]
    triangle: Int[ndarray, " texels"]
    weights: Float[ndarray, "texels 3"]


def texel_places(mesh: Mesh, size: int) -> TexelPlaces:
    """Rasterise a mesh's triangles in its texture."""
    assert mesh.uv is not None
    corners = np.stack([mesh.uv[:, 0] * size, (1 - mesh.uv[:, 1]) * size], axis=1)[mesh.faces].astype(np.float64)
    low = np.floor(corners.min(axis=1) - 0.5).astype(np.int64).clip(0, size - 1)
    high = np.ceil(corners.max(axis=1) - 0.5).astype(np.int64).clip(0, size - 1)
    spans = high - low + 1
    owner = np.full((size, size), -1, np.int64)
    # Triangles by the size of their box, so that those of one size are tested at once.
    for width, height in np.unique(spans, axis=0):
        chosen = np.flatnonzero((spans == (width, height)).all(axis=1))
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        columns = low[chosen, 0, None] + across.ravel()
        rows = low[chosen, 1, None] + down.ravel()
        middle = np.stack([columns + 0.5, rows + 0.5], axis=-1)
        inside = (_weights(corners[chosen][:, None], middle) >= -1e-6).all(axis=-1)
        owner[rows[inside], columns[inside]] = np.broadcast_to(chosen[:, None], inside.shape)[inside]
    covered = owner >= 0
    row, column = np.nonzero(covered)
    triangle = owner[covered]
    weights = _weights(corners[triangle], np.stack([column + 0.5, row + 0.5], axis=1))
    return TexelPlaces(covered, triangle, weights.clip(0, 1))


def _weights(corners: Float[ndarray, "*n 3 2"], points: Float[ndarray, "*n 2"]) -> Float[ndarray, "*n 3"]:
    """Barycentric coordinates; -1 throughout for a triangle without area."""
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    offset = points - corners[..., 0, :]
    area = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    safe = np.where(area == 0, 1, area)
    u = (offset[..., 0] * second[..., 1] - offset[..., 1] * second[..., 0]) / safe
    v = (first[..., 0] * offset[..., 1] - first[..., 1] * offset[..., 0]) / safe
    found = np.stack([1 - u - v, u, v], axis=-1)
    return np.where((area == 0)[..., None], -1.0, found)


def _continued(
    image: Float[ndarray, "size size 3"], inside: Bool[ndarray, "size size"]
) -> Float[ndarray, "size size 3"]:
    """The image with each texel outside of the charts as its nearest one inside, so that filters find no edge."""
    rows, columns = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return image[rows, columns]


@torch.no_grad()
def seen_colors(
    source: Source, points: Float[ndarray, "n 3"], normals: Float[ndarray, "n 3"], depth: float
) -> Float[ndarray, "n 3"]:
    """Colours (n, 3) in [0, 1] that a ray against the normal would see at points of the surface.

    Args:
        source: the asset.
        points, normals: of the surface, in world units and of unit length.
        depth: the ray begins half of it outside and ends that far inside.

    Source: NeRF (Mildenhall et al. 2020), eq. 3, over a short ray, with its colours' weights normalised.
    """
    device = source.device
    edges = torch.linspace(0.5, -1.0, _SHELL_STEPS + 1, device=device) * depth
    middles, length = (edges[1:] + edges[:-1]) / 2, depth * 1.5 / _SHELL_STEPS
    found = []
    both = torch.as_tensor(np.concatenate([points, normals], axis=1), dtype=torch.float32, device=device)
    for chunk in both.split(CHUNK_POINTS // _SHELL_STEPS):
        along = chunk[:, None, :3] + middles[:, None] * chunk[:, None, 3:]
        density, color = source.density_and_color(along.reshape(-1, 3))
        optical = density.reshape(len(chunk), -1) * length
        passed = torch.exp(-(optical.cumsum(dim=1) - optical))
        weights = passed * (1 - torch.exp(-optical)) + 1e-6
        color = color.reshape(len(chunk), -1, 3)
        found.append(((weights[..., None] * color).sum(1) / weights.sum(1, keepdim=True)).float().cpu())
    return torch.cat(found).clamp(0, 1).numpy()
