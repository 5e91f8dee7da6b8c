"""Normals as guidance sees them: as pictures, or early on, with the mask, as the latents themselves.

Source: Chen et al. 2023, "Fantasia3D", section 4.2. It leaves the frame of the normals open. Here it is the camera's,
in which what faces the camera is blue from all sides, as in the normal maps that one finds among pictures.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dreambooth3d.cameras import Cameras
from dreambooth3d.errors import ConfigError

CHANNELS = 4
"""Of normals and mask."""


def camera_normals(normals: Float[Tensor, "n 3 size size"], cameras: Cameras) -> Float[Tensor, "n 3 size size"]:
    """World normals (n, 3, size, size) in the frames of their n cameras: x to the right, y up, z towards the camera."""
    rotation = cameras.camera_to_world[:, :3, :3].to(normals)
    return torch.einsum("nij,nihw->njhw", rotation, normals)


def normal_images(
    normals: Float[Tensor, "n 3 size size"],
    opacity: Float[Tensor, "n size size"],
    background: Float[Tensor, "n 3"] | None,
) -> Float[Tensor, "n 3 size size"]:
    """Pictures in [0, 1] of normals in [-1, 1].

    Args:
        normals: of unit length where there is something.
        opacity: of the views.
        background: plain colours on any device; None is the grey of no normal.
    """
    behind = normals.new_full((len(normals), 3), 0.5) if background is None else background.to(normals)
    share = opacity[:, None]
    return share * (normals + 1) / 2 + (1 - share) * behind[..., None, None]


def normal_latents(
    normals: Float[Tensor, "n 3 size size"],
    opacity: Float[Tensor, "n size size"],
    shape: tuple[int, int, int] | None,
) -> Float[Tensor, "n 4 cells cells"]:
    """Normals and mask in place of latents: both are in [-1, 1], and latents are about as large.

    Args:
        normals: of unit length where there is something.
        opacity: of the views.
        shape: (channels, height, width) of the guidance's latents.

    Raises:
        ConfigError: it has none, or not four channels.
    """
    if shape is None or shape[0] != CHANNELS:
        found = "no latents" if shape is None else f"latents of {shape[0]} channels"
        raise ConfigError(
            f"latents_until: normals and mask have {CHANNELS} channels, and the guide has {found}. Set it to 0."
        )
    both = torch.cat([normals * opacity[:, None], opacity[:, None]], dim=1)
    return interpolate(both, size=shape[1:], mode="area")
