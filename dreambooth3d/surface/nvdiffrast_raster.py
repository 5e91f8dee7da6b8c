"""Which triangle each pixel shows, by nvdiffrast: for users who have installed it, and whom its licence lets use it."""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.surface.raster import NEAR, Projection, Raster

FAR = 100.0
"""Distance in world units beyond which nvdiffrast sees nothing."""
logger = logging.getLogger(__name__)


def require(device: torch.device | str) -> None:
    """Make sure that it can be used.

    Raises:
        ConfigError: it cannot.
    """
    if torch.device(device).type != "cuda":
        raise ConfigError("mesh.rasterizer=nvdiffrast needs a CUDA device. Set mesh.rasterizer=torch.")
    try:
        _module()
    except Exception as error:  # an extension built for another card can raise anything
        raise ConfigError(
            f"mesh.rasterizer=nvdiffrast cannot be used here: {gist(error).rstrip('.')}. Install it from "
            "https://github.com/NVlabs/nvdiffrast, whose licence allows no commercial use, or set "
            "mesh.rasterizer=torch."
        ) from error
    logger.info("mesh by nvdiffrast, as mesh.rasterizer asks for; its licence allows no commercial use")


def is_usable(device: torch.device | str) -> bool:
    """Whether `require` lets it be used."""
    try:
        require(device)
    except ConfigError:
        return False
    return True


@functools.cache
def _module() -> Any:
    return importlib.import_module("nvdiffrast.torch")


@functools.cache
def _context(device: torch.device) -> Any:
    return _module().RasterizeCudaContext(device=device)


@torch.no_grad()
def rasterize(projection: Projection, faces: Int[Tensor, "f 3"]) -> Raster:
    """As `raster.rasterize`; which of equally near triangles it is may differ.

    A triangle that reaches behind the camera is cut there, rather than left out.
    """
    count, height, width = len(projection.places), projection.height, projection.width
    if len(faces) == 0:
        nothing = torch.full((count, height, width), -1, device=faces.device)
        return Raster(nothing, torch.full((count, height, width), torch.inf, device=faces.device))
    found, _ = _module().rasterize(
        _context(faces.device), clip_positions(projection), faces.int().contiguous(), (height, width)
    )
    shown = found[..., 3].long() - 1
    corners = faces[shown.clamp(min=0)]  # (n, height, width, 3)
    views = torch.arange(count, device=faces.device)[:, None, None, None]
    first, second = found[..., 0], found[..., 1]
    weights = torch.stack([first, second, 1 - first - second], dim=-1)
    depth = (weights * projection.depth[views, corners]).sum(dim=-1)
    return Raster(shown, torch.where(shown >= 0, depth, torch.inf))


def clip_positions(projection: Projection) -> Float[Tensor, "n v 4"]:
    """(n, v, 4) vertices in clip space, of which the first row of pixels has the smallest y, as it has here."""
    size = torch.tensor([projection.width, projection.height], device=projection.places.device)
    depth = projection.depth[..., None]
    plane = (2 * projection.places / size - 1) * depth.clamp(min=NEAR)
    along = ((FAR + NEAR) * depth - 2 * FAR * NEAR) / (FAR - NEAR)
    return torch.cat([plane, along, depth], dim=-1).contiguous()
