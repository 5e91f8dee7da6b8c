"""Physically based material: what a surface of a base colour, roughness and metalness shows under an environment.

Source: the metallic-roughness material of Khronos' glTF 2.0 (appendix B), by the split-sum approximation of Karis 2013,
"Real Shading in Unreal Engine 4", as Munkberg et al. 2022, "nvdiffrec", light their meshes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.surface.environment import LightMaps

DIELECTRIC = 0.04
"""Share of light that what is no metal reflects straight ahead: an index of refraction of 1.5."""
LEAST_ROUGHNESS = 0.08
LEAST_COSINE = 1e-2
TABLE, TABLE_SAMPLES = 32, 4096


@dataclass(frozen=True)
class Material:
    """What n points of a surface are made of.

    Attributes:
        base: (n, 3) base colour in [0, 1], as it looks in an image (sRGB).
        roughness: (n,) in [LEAST_ROUGHNESS, 1].
        metallic: (n,) in [0, 1].
    """

    base: Float[Tensor, "n 3"]
    roughness: Float[Tensor, " n"]
    metallic: Float[Tensor, " n"]


def shade(
    material: Material, normals: Float[Tensor, "n 3"], towards: Float[Tensor, "n 3"], light: LightMaps
) -> Float[Tensor, "n 3"]:
    """Colours (n, 3) in [0, 1], as they look in an image; differentiable in the material, the normals and the views.

    What is reflected at a surface that is no metal is missing below it, so that nothing shows more light than it gets.

    Args:
        material: at the points.
        normals: unit normals.
        towards: unit directions towards the camera.
        light: the environment, in the same frame.
    """
    linear, metallic = to_linear(material.base), material.metallic[:, None]
    cosine = (normals * towards).sum(-1).clamp(LEAST_COSINE, 1)
    scale, bias = _directional_albedo(cosine, material.roughness)
    reflected = light.reflected(2 * (normals * towards).sum(-1, keepdim=True) * normals - towards, material.roughness)
    straight = DIELECTRIC * (1 - metallic) + linear * metallic
    specular = reflected * (straight * scale[:, None] + bias[:, None])
    below = (1 - metallic) * (1 - (DIELECTRIC * scale + bias)[:, None])
    return to_srgb((linear * below * light.diffuse(normals) + specular).clamp(0, 1))


def _directional_albedo(
    cosine: Float[Tensor, " n"], roughness: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Scale and bias (n,) of the share of light reflected straight ahead that make the share reflected at a cosine."""
    table = _table().to(cosine)
    grid = torch.stack([2 * roughness - 1, 2 * cosine - 1], dim=-1).view(1, -1, 1, 2)
    found = torch.nn.functional.grid_sample(table, grid, align_corners=True, padding_mode="border")[0, :, :, 0]
    return found[0], found[1]


@cache
def _table() -> Float[Tensor, "1 2 cosines roughnesses"]:
    """Scale and bias at cosines and roughnesses from 0 to 1: the material's half of the split sum.

    By importance sampling; points are those of Hammersley; masking and shadowing are Smith's, as of Heitz 2014.
    """
    line = torch.linspace(0, 1, TABLE, dtype=torch.float64)
    cosine, roughness = line.clamp(min=LEAST_COSINE / 4)[:, None, None], line.clamp(min=1e-2)[None, :, None]
    count = torch.arange(TABLE_SAMPLES, dtype=torch.float64)
    first, second = (count + 0.5) / TABLE_SAMPLES, _radical_inverse(TABLE_SAMPLES)
    square = roughness**4
    half_cosine = ((1 - first) / (1 + (square - 1) * first)).sqrt()
    half_sine = (1 - half_cosine.square()).clamp(min=0).sqrt()
    sine = (1 - cosine.square()).sqrt()
    view_half = sine * half_sine * (2 * math.pi * second).cos() + cosine * half_cosine
    light_cosine = 2 * view_half * half_cosine - cosine
    above = light_cosine > 0
    light_cosine = light_cosine.clamp(min=1e-9)
    masked = light_cosine * (square + (1 - square) * cosine.square()).sqrt()
    shadowed = cosine * (square + (1 - square) * light_cosine.square()).sqrt()
    weight = above * 2 * light_cosine * view_half / (half_cosine * (masked + shadowed))
    grazing = (1 - view_half.clamp(0, 1)) ** 5
    both = torch.stack([(weight * (1 - grazing)).mean(-1), (weight * grazing).mean(-1)])
    return both[None].float()


def _radical_inverse(count: int) -> Float[Tensor, " count"]:
    """(count,) the numbers from 0 with their binary digits mirrored behind the point."""
    left, found, share = torch.arange(count), torch.zeros(count, dtype=torch.float64), 0.5
    while left.any():
        found += share * (left % 2)
        left, share = left // 2, share / 2
    return found


def to_linear(colors: Tensor) -> Tensor:
    """Light of colours in [0, 1] as images keep them in sRGB (IEC 61966-2-1)."""
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Inverse of `to_linear`."""
    curved = 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, curved)
