"""Textures of a physically based material: base colour, metalness and roughness, and normals in tangent space.

Source: Khronos' glTF 2.0: roughness in the green channel and metalness in the blue one; normals in the frame of each
vertex' tangent, which points along the texture's u, with y upwards in the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from dreambooth3d.export.mesh import Mesh
from dreambooth3d.representation.interface import SurfaceMaterial

AskMaterial = Callable[[Tensor, Tensor], SurfaceMaterial]
"""Points (n, 3) of the surface and its unit normals (n, 3), in the world -> what it is made of there."""
Paint = Callable[[ndarray], ndarray]
"""Values (texels, 3) in [0, 1] at a mesh's texels -> an image (size, size, 3) of uint8."""


def with_material(
    mesh: Mesh,
    corners: Float[ndarray, "texels 3"],
    weights: Float[ndarray, "texels 3"],
    paint: Paint,
    ask: AskMaterial,
    device: torch.device | str,
) -> Mesh:
    """A mesh with the textures of its asset's material.

    Args:
        mesh: with its atlas.
        corners: (texels, 3) vertices of the triangle that each texel lies in.
        weights: (texels, 3) of these corners.
        paint: puts values of texels into an image.
        ask: the asset's material.
        device: where it is asked.
    """
    tangents = vertex_tangents(mesh)
    points, normals, along = (
        np.einsum("nk,nkc->nc", weights, values[corners]) for values in (mesh.vertices, mesh.normals, tangents[:, :3])
    )
    normals = _unit(normals)
    found = ask(*(torch.as_tensor(each, dtype=torch.float32, device=device) for each in (points, normals)))
    base, roughness, metallic, bent = (
        each.detach().float().cpu().numpy() for each in (found.base, found.roughness, found.metallic, found.normals)
    )
    along = _unit(along - (along * normals).sum(1, keepdims=True) * normals)
    up = np.cross(normals, along) * tangents[corners[:, 0], 3:]
    local = np.stack([(bent * axis).sum(1) for axis in (along, up, normals)], axis=1)
    finish = np.stack([np.zeros_like(roughness), roughness, metallic], axis=1)
    return replace(
        mesh, texture=paint(base), metallic_roughness=paint(finish), normal_map=paint((_unit(local) + 1) / 2)
    )


def vertex_tangents(mesh: Mesh) -> Float[ndarray, "v 4"]:
    """(v, 4) unit tangents along the texture's u, square to the normals; and by which sign the cross product of normal
    and tangent points upwards in the texture."""
    assert mesh.uv is not None
    corners, places = mesh.vertices[mesh.faces].astype(np.float64), mesh.uv[mesh.faces].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (u1, v1), (u2, v2) = (places[:, 1] - places[:, 0]).T, (places[:, 2] - places[:, 0]).T
    area = u1 * v2 - u2 * v1
    turned = np.sign(area)[:, None]
    along, up = np.zeros_like(mesh.vertices, np.float64), np.zeros_like(mesh.vertices, np.float64)
    for corner in range(3):
        np.add.at(along, mesh.faces[:, corner], turned * (v2[:, None] * first - v1[:, None] * second))
        np.add.at(up, mesh.faces[:, corner], turned * (u1[:, None] * second - u2[:, None] * first))
    normals = mesh.normals.astype(np.float64)
    along -= (along * normals).sum(1, keepdims=True) * normals
    lost = np.linalg.norm(along, axis=1) < 1e-12
    along[lost] = np.cross(normals[lost], np.eye(3)[np.abs(normals[lost]).argmin(axis=1)])
    along = _unit(along)
    sign = np.where((np.cross(normals, along) * up).sum(1) < 0, -1.0, 1.0)
    return np.concatenate([along, sign[:, None]], axis=1).astype(np.float32)


def _unit(vectors: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
