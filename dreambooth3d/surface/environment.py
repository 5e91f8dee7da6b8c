"""Light from all around, and what surfaces of any roughness see of it: the light's half of the split sum.

Directions are those of the asset's own frame, z up and the front towards +x; light is linear radiance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.config.mesh import LightConfig
from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.surface.given import given_file, require_unchanged
from dreambooth3d.surface.radiance import MAGIC, read_radiance

HEIGHT, WIDTH = 32, 64
"""Texels of an environment, over latitude and longitude."""
FACE = 16
"""Texels along the sides of the cubes that are looked up in; a border of one texel more leaves no seams."""
ROUGHNESSES = (0.0, 0.25, 0.4, 0.6, 0.8, 1.0)
"""Of the cubes of reflected light. The first is the environment itself; the lobe of the next is as wide as a texel."""
DIRECTIONS_AT_ONCE = 512
KEY, FILL = (0.45, 0.25, 0.86), (0.3, -0.9, 0.3)
"""Towards the lamps of the studio."""


@dataclass(frozen=True)
class LightMaps:
    """An environment, ready to be looked up in.

    Attributes:
        source: (height, width, 3) the environment.
        cubes: (cubes, 6, FACE + 2, FACE + 2, 3) light that is reflected, by roughness; in the last cube what a white
            matt surface shows that faces a direction: irradiance over pi.
    """

    source: Float[Tensor, "height width 3"]
    cubes: Float[Tensor, "cubes 6 rows columns 3"]

    def diffuse(self, normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """What white matt surfaces with unit normals (n, 3) show; differentiable in the normals."""
        return _look_up(self.cubes, torch.full((len(normals),), len(ROUGHNESSES), device=normals.device), normals)

    def reflected(self, directions: Float[Tensor, "n 3"], roughness: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Light (n, 3) around unit directions (n, 3), blurred as roughnesses (n,) make it; differentiable in both."""
        levels = torch.tensor(ROUGHNESSES, device=roughness.device)
        below = torch.searchsorted(levels, roughness.detach(), right=True).clamp(1, len(levels) - 1) - 1
        share = (roughness - levels[below]) / (levels[below + 1] - levels[below])
        first, second = (_look_up(self.cubes, below + step, directions) for step in (0, 1))
        return first + share[:, None] * (second - first)


def _look_up(cubes: Tensor, cube: Int[Tensor, " n"], directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Bilinear values (n, 3) of cubes in directions (n, 3)."""
    axis = directions.detach().abs().argmax(dim=1, keepdim=True)
    along = directions.gather(1, axis)
    beside = torch.tensor([[1, 2], [0, 2], [0, 1]], device=axis.device)[axis[:, 0]]
    places = (directions.gather(1, beside) / along.abs() + 1) * (FACE / 2) + 0.5
    corner = places.detach().floor().clamp(0, FACE)
    share = places - corner
    row, column = corner.long().unbind(1)
    face = 2 * axis[:, 0] + (along[:, 0] < 0)
    side, values = FACE + 2, cubes.reshape(-1, 3)
    first = ((cube * 6 + face) * side + row) * side + column
    down, across = share[:, :1], share[:, 1:]
    upper = values[first] * (1 - across) + values[first + 1] * across
    lower = values[first + side] * (1 - across) + values[first + side + 1] * across
    return upper * (1 - down) + lower * down


def _face_directions() -> Float[Tensor, "texels 3"]:
    """(6 * side * side, 3) unit directions of the texels of a cube, its borders included."""
    line = (torch.arange(FACE + 2) - 0.5) * (2 / FACE) - 1
    across = torch.cartesian_prod(line, line)
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            rest = [other for other in range(3) if other != axis]
            face = torch.full((len(across), 3), sign)
            face[:, rest] = across
            faces.append(face)
    return torch.nn.functional.normalize(torch.cat(faces), dim=1)


def _texel_directions(height: int, width: int) -> tuple[Float[Tensor, "texels 3"], Float[Tensor, " texels"]]:
    """Unit directions (texels, 3) of an environment's texels, row by row, and their solid angles (texels,)."""
    edges = torch.linspace(0, math.pi, height + 1)
    polar = (edges[1:] + edges[:-1]) / 2
    azimuth = 2 * math.pi * (0.5 - (torch.arange(width) + 0.5) / width)
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
    ring = polar.sin()
    directions = torch.stack([ring * azimuth.cos(), ring * azimuth.sin(), polar.cos()], dim=-1)
    angles = (edges[:-1].cos() - edges[1:].cos()) * (2 * math.pi / width)
    return directions.view(-1, 3), angles[:, None].expand(height, width).flatten()


@torch.no_grad()
def light_maps(environment: Float[Tensor, "height width 3"]) -> LightMaps:
    """The cubes of an environment (height, width, 3), on its device.

    Source: Karis 2013, "Real Shading in Unreal Engine 4": light around the reflected direction, weighted by the GGX
    distribution as seen along the normal. It is summed over all texels.
    """
    height, width, _ = environment.shape
    texels, angles = (values.to(environment) for values in _texel_directions(height, width))
    towards, light = _face_directions().to(environment), environment.reshape(-1, 3)
    cubes = [_at(environment, towards)]
    for roughness in ROUGHNESSES[1:]:
        square = roughness**4

        def lobe(cosine: Tensor, square: float = square) -> Tensor:
            half = (1 + cosine) / 2
            return cosine / (half * (square - 1) + 1).square()

        cubes.append(_gathered(light, texels, angles, towards, lobe))
    cubes.append(_gathered(light, texels, angles, towards, lambda cosine: cosine))
    side = FACE + 2
    return LightMaps(environment, torch.stack(cubes).view(len(cubes), 6, side, side, 3))


def _gathered(
    light: Tensor, texels: Tensor, angles: Tensor, towards: Tensor, lobe: Callable[[Tensor], Tensor]
) -> Float[Tensor, "k 3"]:
    """Means (k, 3) of light around directions (k, 3), weighted by a function of the cosine above the horizon."""
    found = []
    for part in towards.split(DIRECTIONS_AT_ONCE):
        cosine = (part @ texels.T).clamp(min=0)
        weights = lobe(cosine) * angles
        found.append(weights @ light / weights.sum(dim=1, keepdim=True))
    return torch.cat(found)


def _at(environment: Tensor, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Bilinear values (n, 3) of an environment in directions (n, 3)."""
    width = environment.shape[1]
    image = environment.permute(2, 0, 1)[None]
    image = torch.cat([image[..., -1:], image, image[..., :1]], dim=-1)
    azimuth = torch.atan2(directions[:, 1], directions[:, 0])
    x = (0.5 - azimuth / (2 * math.pi)) * width + 1
    y = torch.acos(directions[:, 2].clamp(-1, 1)) / math.pi
    grid = torch.stack([2 * x / (width + 2) - 1, 2 * y - 1], dim=-1)[None, :, None]
    found = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return found[0, :, :, 0].T


def environment_of(config: LightConfig) -> Float[Tensor, "height width 3"]:
    """The environment that is asked for, (HEIGHT, WIDTH, 3), scaled to its brightness.

    Raises:
        ConfigError: it is neither a name nor a file that can be read.
    """
    made = PROCEDURAL.get(config.environment)
    image = made() if made is not None else _read(find_environment(config.environment), config.digest)
    _, angles = _texel_directions(HEIGHT, WIDTH)
    mean = (image.reshape(-1, 3) * angles[:, None]).sum(0).mean() / (4 * math.pi)
    if not mean > 0:
        raise ConfigError(f"mesh.light.environment={config.environment}: this picture is black. Give another.")
    return image * (config.brightness / mean)


def _white() -> Float[Tensor, "height width 3"]:
    return torch.ones(HEIGHT, WIDTH, 3)


def _studio() -> Float[Tensor, "height width 3"]:
    """A bright room: more light from above, a large lamp high in front and a smaller one to the right."""
    directions, _ = _texel_directions(HEIGHT, WIDTH)
    key, fill = (torch.nn.functional.normalize(torch.tensor(lamp), dim=0) for lamp in (KEY, FILL))
    light = 0.6 + 0.4 * directions[:, 2] * 0.5
    light = light + 4.0 * torch.exp(14 * (directions @ key - 1)) + 1.5 * torch.exp(20 * (directions @ fill - 1))
    return light.view(HEIGHT, WIDTH, 1).expand(-1, -1, 3).clone()


PROCEDURAL: Mapping[str, Callable[[], Float[Tensor, "height width 3"]]] = {"studio": _studio, "white": _white}
"""Environments that need no file."""


def find_environment(path: Path | str) -> Path:
    """The file of an environment, seen from the working directory or the checkout.

    Raises:
        ConfigError: there is none.
    """
    found = given_file(path)
    if found is None:
        raise ConfigError(
            f"mesh.light.environment={path}: there is no such file. Give the path of a latitude-longitude picture, "
            f"such as studio.hdr, or one of {', '.join(PROCEDURAL)}."
        )
    return found


def _read(path: Path, digest: str = "") -> Float[Tensor, "height width 3"]:
    """A picture over latitude (+90 degrees at the top) and longitude (the front in the middle), made small."""
    require_unchanged(path, digest)
    try:
        content = path.read_bytes()
        pixels = read_radiance(content) if content.startswith(MAGIC) else np.asarray(imageio.imread(content))
    except Exception as error:  # each of its plugins raises what it likes
        raise ConfigError(
            f"mesh.light.environment={path}: cannot be read ({gist(error).rstrip('.')}). Save it as Radiance .hdr or "
            "as a TIFF of floats."
        ) from error
    if pixels.ndim != 3 or pixels.shape[2] < 3 or not np.issubdtype(pixels.dtype, np.floating):
        raise ConfigError(
            f"mesh.light.environment={path}: holds no linear light, but {pixels.dtype} values of the shape "
            f"{pixels.shape}. Give a high-dynamic-range picture in colour, such as studio.hdr."
        )
    light = torch.from_numpy(np.ascontiguousarray(pixels[..., :3], np.float32)).nan_to_num().clamp(min=0)
    small = torch.nn.functional.interpolate(light.permute(2, 0, 1)[None], size=(HEIGHT, WIDTH), mode="area")
    return small[0].permute(1, 2, 0).contiguous()
