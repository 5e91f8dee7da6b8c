"""Outlines of a mesh, blended by how far they reach between pixel centres: where the gradient of a silhouette is.

The edges between a triangle that faces the camera and one that does not are the outline. Where one of them crosses the
line between the centres of two pixels, of which one shows what is behind the outline, the two are blended by the place
of the crossing, as Laine et al. do. They look for such edges at the triangles that pixels show; here all edges of
the mesh are tried, of which few are outlines, since triangles smaller than a pixel are shown by none. Soft edges, as
of Liu et al. 2019, "Soft Rasterizer", would need several triangles for each pixel, and blur what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreambooth3d.surface.marching import Topology
from dreambooth3d.surface.raster import NEAR, Projection, Raster

DIRECTIONS = 4


@dataclass(frozen=True)
class Crossings:
    """Where outlines cross the lines between the centres of neighbouring pixels.

    Attributes:
        inner: (k,) pixel on the side of the surface, among all pixels of all images.
        outer: (k,) its neighbour across the outline.
        reach: (k,) in [0, 1], how far from the inner pixel's centre to the outer one's the outline lies.
        depth: (k,) of the outline there, along the camera's axis; without gradient.
        pair: (k,) number of the pair of pixels.
    """

    inner: Int[Tensor, " k"]
    outer: Int[Tensor, " k"]
    reach: Float[Tensor, " k"]
    depth: Float[Tensor, " k"]
    pair: Int[Tensor, " k"]

    def __getitem__(self, kept: Tensor) -> Crossings:
        return Crossings(*(getattr(self, each.name)[kept] for each in fields(self)))


def antialias(
    images: Float[Tensor, "n channels height width"], raster: Raster, projection: Projection, topology: Topology
) -> Float[Tensor, "n channels height width"]:
    """Images with blended outlines, differentiable in the images and in the projection.

    Args:
        images: of the raster, without antialiasing; 0 where it shows nothing.
        raster: what they show.
        projection: of the mesh's vertices.
        topology: of the mesh.

    Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", section 3.5.
    """
    found = _visible(_crossings(projection, topology), raster)
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2)  # (n * height * width, channels)
    over = found.reach - 0.5
    change = pixels[found.inner] - pixels[found.outer]
    blended = pixels.index_add(0, found.outer, over.clamp(min=0)[:, None] * change)
    blended = blended.index_add(0, found.inner, over.clamp(max=0)[:, None] * change)
    count, channels, height, width = images.shape
    return blended.view(count, height, width, channels).permute(0, 3, 1, 2)


@torch.no_grad()
def _outlines(projection: Projection, topology: Topology) -> tuple[Tensor, Tensor, Tensor]:
    """(k,) view, (k, 2) vertices of each edge on an outline, and (k,) the third vertex of its triangle in front."""
    corners = projection.places[:, topology.faces]
    first, second = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    # Counter-clockwise from outside is clockwise here, as y points down.
    front = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0] < 0
    sides = front[:, topology.beside]  # (n, e, 2)
    # A border is an outline from wherever it is seen: beyond it there is nothing that faces the same way.
    first_alone = topology.beside[:, 1] < 0
    sides[..., 1] = torch.where(first_alone, ~sides[..., 0], sides[..., 1])
    before = (projection.depth > NEAR)[:, topology.edges].all(dim=-1)
    view, edge = ((sides[..., 0] != sides[..., 1]) & before).nonzero(as_tuple=True)
    ends = topology.edges[edge]
    facing = torch.where(sides[view, edge, 0] | first_alone[edge], topology.beside[edge, 0], topology.beside[edge, 1])
    return view, ends, topology.faces[facing].sum(dim=1) - ends.sum(dim=1)


def _crossings(projection: Projection, topology: Topology) -> Crossings:
    """Of all outlines, hidden ones as well.

    Steep edges are looked for along rows, flat ones along columns, so that each length of outline counts once.
    """
    view, ends, third = _outlines(projection, topology)
    places, depth = projection.places[view[:, None], ends], projection.depth.detach()[view[:, None], ends]
    inner = projection.places.detach()[view, third]
    rise = (places[:, 1] - places[:, 0]).detach().abs()
    steep = rise[:, 1] >= rise[:, 0]
    parts = []
    for transposed, kept in ((False, steep), (True, ~steep)):
        order = [1, 0] if transposed else [0, 1]
        parts.append(
            _along_rows(
                places[kept][..., order], depth[kept], inner[kept][:, order], view[kept], projection, transposed
            )
        )
    return Crossings(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Crossings)))


def _along_rows(
    ends: Tensor, depth: Tensor, inner: Tensor, view: Tensor, projection: Projection, transposed: bool
) -> Crossings:
    """Crossings of edges with the lines through the centres of rows; of columns in transposed images."""
    height, width = projection.height, projection.width
    rows, columns = (width, height) if transposed else (height, width)
    fixed = ends.detach()[..., 1]
    first = (fixed.amin(dim=1) - 0.5).ceil().clamp(min=0)
    last = (fixed.amax(dim=1) - 0.5).floor().clamp(max=rows - 1)
    counts = (last - first + 1).clamp(min=0).long()
    edge = torch.arange(len(ends), device=ends.device).repeat_interleave(counts)
    row = first[edge].long() + torch.arange(len(edge), device=ends.device) - (counts.cumsum(0) - counts)[edge]
    (ax, ay), (bx, by) = (ends[edge, end].unbind(-1) for end in (0, 1))
    share = (row + 0.5 - ay) / (by - ay)
    across = ax + share * (bx - ax)
    with torch.no_grad():
        left = (across - 0.5).floor().long()
        cx, cy = inner[edge].unbind(-1)
        surface_right = cx > ax + (cy - ay) / (by - ay) * (bx - ax)
        inverse = (1 - share) / depth[edge, 0] + share / depth[edge, 1]
    reach = torch.where(surface_right, left + 1.5 - across, across - left - 0.5)
    inside, outside = left + surface_right.long(), left + (~surface_right).long()

    def pixel(column: Tensor) -> Tensor:
        vertical, horizontal = (column, row) if transposed else (row, column)
        return (view[edge] * height + vertical) * width + horizontal

    pair = pixel(inside) * DIRECTIONS + 2 * transposed + surface_right
    found = Crossings(pixel(inside), pixel(outside), reach, 1 / inverse, pair)
    return found[(left >= 0) & (left < columns - 1)]


@torch.no_grad()
def _seen(found: Crossings, raster: Raster) -> Bool[Tensor, " k"]:
    """(k,) whether an outline is seen: the inner pixel shows its surface, the outer one something behind it."""
    depth = raster.depth.flatten()
    inner, outer = depth[found.inner], depth[found.outer]
    # Of what lies between the two, what is nearer to the surface in front belongs to that.
    return (inner < outer) & (found.depth < torch.where(outer.isinf(), torch.inf, (inner + outer) / 2))


def _visible(found: Crossings, raster: Raster) -> Crossings:
    """The crossings that are seen; of several between two pixels, the one farthest out."""
    found = found[_seen(found, raster)]
    farthest = torch.zeros(raster.faces.numel() * DIRECTIONS, device=found.reach.device)
    reach = found.reach.detach()
    farthest.scatter_reduce_(0, found.pair, reach, "amax")
    return found[reach >= farthest[found.pair]]
