"""What a field asks of its encoding: where its logits come from, and how fine they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

LOGITS = 4
"""Of density, then of the three colours; a field of latents has one for each of their channels instead."""


class Encoding(nn.Module, ABC):
    """Parameters in space that features of points are interpolated from.

    To add one, derive from this class and name it in `config.field.EncodingName` and in `encodings.make_encoding`.

    Attributes:
        output_dim: features per point.
        holds_density: whether `add_density` changes the parameters; else the field itself adds that density to its
            logits at each point.
    """

    output_dim: int
    holds_density: bool = False

    @abstractmethod
    def forward(self, points: Float[Tensor, "n 3"], channels: int = LOGITS) -> Float[Tensor, "n features"]:
        """Features (n, features) of points (n, 3) in world units.

        Args:
            points: those outside [-1, 1] count as on its border.
            channels: how many of the first logits are wanted; an encoding whose features are logits gives only these.
        """

    @abstractmethod
    def make_head(self, width: int, logits: int = LOGITS) -> nn.Module:
        """What makes logits (n, logits) of features: a fresh network of that width; nothing where they are logits."""

    def add_density(self, logits_at: Callable[[Tensor], Tensor]) -> None:
        """Add density logits, a function of points (n, 3), to the parameters; only with `holds_density`."""
        raise NotImplementedError(f"{type(self).__name__} cannot hold a density that is given as a function.")

    def volume(self) -> Float[Tensor, "1 logits z y x"] | None:
        """(1, logits, z, y, x) logits at the vertices of a grid over [-1, 1]^3, where these are all that there is."""
        return None

    def level_gradients(self) -> list[Tensor]:
        """The parameters' gradients level by level, the coarsest first, to be changed in place; one level at first."""
        return [parameter.grad for parameter in self.parameters() if parameter.grad is not None]

    @property
    @abstractmethod
    def detail_size(self) -> float:
        """Width of the finest cells in world units."""

    @property
    @abstractmethod
    def normal_step(self) -> float:
        """Distance in world units over which normals are taken by finite differences."""
