"""What a physically based surface has in space beside its base colour: roughness, metalness, offsets of normals."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.encoding import LOGITS
from dreambooth3d.nerf.field.encodings import make_encoding
from dreambooth3d.nerf.field.regularizers import smoothness
from dreambooth3d.surface.material import LEAST_ROUGHNESS

ROUGHNESS_LOGIT, METALLIC_LOGIT = 1.0, -3.0
"""Of a fresh surface: rather rough, and no metal."""


class Volume(nn.Module):
    """Logits in space, by an encoding of their own.

    Args:
        config: of the encoding.
        device: where it lives.
    """

    def __init__(self, config: FieldConfig, device: torch.device | str) -> None:
        super().__init__()
        self.encoding = make_encoding(config, device)
        self.head = self.encoding.make_head(config.hidden_width)

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return next(self.parameters()).device

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
        """(n, 4) at points (n, 3)."""
        return self.head(self.encoding(points, LOGITS)).float()


class Paint(nn.Module):
    """Roughness, metalness and offsets of normals at points of a surface, by encodings like that of its colours.

    Args:
        config: of the encodings.
        device: where it lives.
    """

    def __init__(self, config: FieldConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.finish, self.relief = Volume(config, device), Volume(config, device)

    def roughness_and_metallic(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """(n,) in [LEAST_ROUGHNESS, 1] and (n,) in [0, 1] at points (n, 3)."""
        roughness, metallic = self.finish.logits(points)[:, :2].unbind(1)
        share = (roughness + ROUGHNESS_LOGIT).sigmoid()
        return LEAST_ROUGHNESS + (1 - LEAST_ROUGHNESS) * share, (metallic + METALLIC_LOGIT).sigmoid()

    def bent(self, normals: Float[Tensor, "n 3"], points: Float[Tensor, "n 3"], height: float) -> Float[Tensor, "n 3"]:
        """Unit normals (n, 3) with the offsets that they have at points (n, 3), of at most `height` along each axis."""
        offsets = self.relief.logits(points)[:, :3].tanh()
        return nn.functional.normalize(normals + height * offsets, dim=-1)

    def smoothness(self, generator: torch.Generator) -> Float[Tensor, ""]:
        """Total variation of all logits; see `nerf.field.regularizers.smoothness`."""
        return smoothness(self.finish, generator) + smoothness(self.relief, generator)
