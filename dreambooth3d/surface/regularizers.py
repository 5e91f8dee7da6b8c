"""What keeps a mesh smooth and free of surfaces that nothing asks for."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dreambooth3d.surface.marching import Topology


def face_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """(f, 3) outward, of twice the triangles' areas in length."""
    first, second, third = vertices[faces].unbind(1)
    return torch.linalg.cross(second - first, third - first)


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """(v, 3) outward, of unit length: the mean of the triangles around, weighted by their areas."""
    around = face_normals(vertices, faces).repeat_interleave(3, dim=0)
    return torch.nn.functional.normalize(torch.zeros_like(vertices).index_add(0, faces.flatten(), around), dim=-1)


def normal_consistency(vertices: Float[Tensor, "v 3"], topology: Topology) -> Float[Tensor, ""]:
    """Mean over edges of 1 - cosine between the normals of the two triangles beside."""
    normals = torch.nn.functional.normalize(face_normals(vertices, topology.faces), dim=-1)
    first, second = normals[topology.beside].unbind(1)
    return (1 - (first * second).sum(-1)).mean()


def laplacian(vertices: Float[Tensor, "v 3"], topology: Topology) -> Float[Tensor, ""]:
    """Mean over vertices of the squared distance from the middle of their neighbours."""
    first, second = topology.edges.unbind(1)
    index = torch.cat([first, second])
    total = torch.zeros_like(vertices).index_add(0, index, vertices[torch.cat([second, first])])
    count = torch.zeros_like(vertices[:, :1]).index_add(
        0, index, torch.ones_like(vertices[:1, :1]).expand(len(index), 1)
    )
    return (total / count.clamp(min=1) - vertices).square().sum(-1).mean()


def sign_changes(distance: Float[Tensor, " v"], topology: Topology) -> Float[Tensor, ""]:
    """Mean over crossed edges of the cross entropy between each end's distance and the other end's sign.

    Source: Munkberg et al. 2022, "Extracting Triangular 3D Models, Materials, and Lighting From Images", eq. 2.
    """
    inner, outer = distance[topology.ends].unbind(1)
    ones, zeros = torch.ones_like(inner), torch.zeros_like(outer)
    return (binary_cross_entropy_with_logits(inner, ones) + binary_cross_entropy_with_logits(outer, zeros)).mean()
