"""How latents look, as affine maps between them and colours, which hold cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LatentColors:
    """Affine maps between an image model's latents and the mean colours of the pixels that they stand for.

    Attributes:
        decoder: (3, channels + 1) from latents to colours in [0, 1]; the last column is added.
        encoder: (channels, 4) from the colour of a plain image to its latents, likewise.
    """

    decoder: Float[Tensor, "3 columns"]
    encoder: Float[Tensor, "channels 4"]

    @property
    def channels(self) -> int:
        """Of the latents."""
        return len(self.encoder)


def affine(matrix: Float[Tensor, "out columns"], values: Float[Tensor, "n in"]) -> Float[Tensor, "n out"]:
    """(n, out): an affine map of values (n, in), whose last column is added."""
    return values @ matrix[:, :-1].T + matrix[:, -1]
