"""A field of latents: what guidance sees of it, and the colours that are mixed of them."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid
from dreambooth3d.representation.latents import LatentColors, affine

LATENTS = 4
"""Channels of Stable Diffusion's latents, and of the models that are built like it."""


class LatentHead(nn.Module):
    """The affine maps between latents and colours; that from latents learns wherever colours are looked at."""

    encoder: Float[Tensor, "channels 4"]

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Parameter(torch.zeros(3, LATENTS + 1))
        self.register_buffer("encoder", torch.zeros(LATENTS, 4))

    @torch.no_grad()
    def take(self, colors: LatentColors) -> None:
        """Begin with given maps.

        Raises:
            ConfigError: for latents of another number of channels.
        """
        if colors.channels != LATENTS:
            raise ConfigError(
                f"render.space: latent is for models with {LATENTS} channels of latents, and this one has "
                f"{colors.channels}. Set render.space to rgb."
            )
        self.decoder.copy_(colors.decoder)
        self.encoder.copy_(colors.encoder)

    def colors(self, latents: Float[Tensor, "n channels"]) -> Float[Tensor, "n 3"]:
        """Colours (n, 3) in [0, 1] of latents (n, channels); beyond the range gradients pass as within it."""
        free = affine(self.decoder, latents)
        return free + (free.clamp(0, 1) - free).detach()

    def latents(self, colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Latents (n, channels) of plain images of colours (n, 3)."""
        return affine(self.encoder, colors)


class HoldsLatents(Protocol):
    """What is asked of a field; see `radiance_field.Field`."""

    @property
    def occupancy(self) -> OccupancyGrid: ...
    def density_and_held(self, points: Tensor) -> tuple[Tensor, Tensor]: ...
    def normals(self, points: Tensor) -> Tensor: ...
    def background(self, directions: Tensor) -> Tensor: ...


class LatentVolume:
    """A field as guidance by latents sees it: a `volume.Volume` whose albedo and background are latents.

    Source: Metzer et al. 2022, "Latent-NeRF for Shape-Guided Generation of 3D Shapes and Textures", section 3.1.
    """

    def __init__(self, field: HoldsLatents, head: LatentHead) -> None:
        self.field, self.head = field, head

    @property
    def occupancy(self) -> OccupancyGrid:
        """See `volume.Volume`."""
        return self.field.occupancy

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (n,) and latents (n, channels)."""
        return self.field.density_and_held(points)

    def normals(self, points: Tensor) -> Tensor:
        """See `volume.Volume`."""
        return self.field.normals(points)

    def background(self, directions: Tensor) -> Tensor:
        """Latents (n, channels) of the field's background."""
        return self.head.latents(self.field.background(directions))
