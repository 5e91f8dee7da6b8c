"""The radiance field: density and albedo inside the unit ball, and what lies behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.encoding import LOGITS
from dreambooth3d.nerf.field.encodings import make_encoding
from dreambooth3d.nerf.field.occupancy import OccupancyGrid

BALL_RADIUS = 1.0
INITIAL_BACKGROUND_LOGIT = 0.8
ENVIRONMENT_FREQUENCIES = 3
TETRAHEDRON = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


class Field(nn.Module):
    """Density and albedo on an encoding, with the occupancy grid that says where there is anything.

    Args:
        config: which encoding, the initial blob, the background.
        device: where it lives; decides what `implementation: auto` means.
        occupancy_resolution: cells per side of the occupancy grid.
    """

    turn: Float[Tensor, "3 3"]
    shift: Float[Tensor, " 3"]
    stretch: Float[Tensor, ""]
    tetrahedron: Float[Tensor, "4 3"]

    def __init__(self, config: FieldConfig, device: torch.device | str = "cpu", occupancy_resolution: int = 32) -> None:
        super().__init__()
        self.config = config
        self.encoding = make_encoding(config, device)
        if self.encoding.holds_density:
            self.encoding.add_density(self._blob)
        self.head = self.encoding.make_head(config.hidden_width)
        self.background = Background(config.background)
        self.register_buffer("turn", torch.eye(3))
        self.register_buffer("shift", torch.zeros(3))
        self.register_buffer("stretch", torch.ones(()))
        self.register_buffer("tetrahedron", torch.tensor(TETRAHEDRON), persistent=False)
        self.occupancy = OccupancyGrid(occupancy_resolution)
        self.to(device)
        self.occupancy.mark_changed()

    def _blob(self, points: Tensor) -> Tensor:
        """(n,) initial density logits: a soft ball around the origin, bounded below so that its outside stays alive.

        Source: Poole et al. 2022, "DreamFusion", appendix A.2, in the linear form of Lin et al. 2023, "Magic3D".
        """
        config = self.config
        return config.blob_density * (1 - points.norm(dim=-1) / config.blob_radius).clamp(min=-1)

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
        """(n, 4) logits of density and colour at points (n, 3) in world units."""
        return self._first_logits(self._own(points), LOGITS)

    def _own(self, points: Tensor) -> Tensor:
        """Points (n, 3) of the world in the frame of the encoding, which `move` has moved."""
        return torch.addmm(self.shift, points, self.turn)

    def _first_logits(self, own: Tensor, channels: int) -> Tensor:
        """At least the first `channels` of the logits at points (n, 3) in the encoding's frame."""
        logits = self.head(self.encoding(own, channels))
        if self.encoding.holds_density:
            return logits
        return torch.cat([logits[:, :1] + self._blob(own)[:, None], logits[:, 1:]], dim=-1)

    def _activate_density(self, logits: Tensor, own: Tensor) -> Tensor:
        """(n,) density of logits (n,) at points (n, 3) in the encoding's frame: softplus, 0 outside its unit ball."""
        inside = own.norm(dim=-1) < BALL_RADIUS
        return nn.functional.softplus(logits) * (inside * (self.config.density_scale * self.stretch))

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """(n,) density in inverse world units at points (n, 3); cheaper than with colours on a dense volume."""
        own = self._own(points)
        return self._activate_density(self._first_logits(own, 1)[:, 0], own)

    def density_and_color(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Density (n,) in inverse world units and albedo (n, 3) in [0, 1] at points (n, 3) in world units."""
        own = self._own(points)
        logits = self._first_logits(own, LOGITS)
        return self._activate_density(logits[:, 0], own), logits[:, 1:].sigmoid()

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Unit normals (n, 3) at points (n, 3): against the gradient of density, differentiable in the parameters.

        Finite differences over the four corners of a tetrahedron, because `grid_sample` and tiny-cuda-nn lack the
        second derivatives that a loss on autograd normals needs. The logit is used since its gradient has the density's
        direction and does not vanish inside a solid.
        """
        corners = self.tetrahedron
        shifted = points[None] + self.encoding.normal_step * corners[:, None]
        logits = self._first_logits(self._own(shifted.view(-1, 3)), 1)[:, 0].view(4, -1)
        return nn.functional.normalize(-(logits.t() @ corners), dim=-1, eps=1e-6)

    def turn_by(self, angle_deg: float) -> None:
        """Turn all that the field holds about z, counter-clockwise seen from above; the occupancy is unknown then."""
        self.move(turn_about_z(angle_deg).to(self.turn))

    def move(
        self, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, " 3"] | None = None, scale: float = 1.0
    ) -> None:
        """Turn all that the field holds about the origin, then shift it, then scale it from the origin.

        The occupancy is unknown then. The opacity through the whole of it stays what it was.
        """
        self.turn.copy_(rotation @ self.turn / scale)
        if shift is not None:
            self.shift.sub_(shift @ (scale * self.turn))
        self.stretch.div_(scale)
        self.occupancy.reset()

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers on the CPU, for a `RadianceField`."""
        return {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}

    @staticmethod
    def from_artifact(artifact: RadianceField, device: torch.device | str = "cpu") -> Field:
        """The field of an artifact; see `from_state`."""
        return Field.from_state(artifact.state, artifact.config, device)

    @staticmethod
    def from_state(
        state: Mapping[str, Tensor], config: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Field:
        """Inverse of `state` for a field of the given configuration (`FieldConfig.model_dump()`).

        The hash grid's implementations share their parameters: where the configured one cannot be used, `auto` is.
        """
        settings, resolution = FieldConfig.model_validate(dict(config)), state["occupancy.density"].shape[0]
        try:
            field = Field(settings, device, resolution)
        except ConfigError:
            field = Field(settings.model_copy(update={"implementation": "auto"}), device, resolution)
        field.load_state_dict(dict(state))
        field.occupancy.mark_changed()
        return field


def turn_about_z(angle_deg: float) -> Float[Tensor, "3 3"]:
    """(3, 3) rotation about z, counter-clockwise seen from above."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


class Background(nn.Module):
    """What lies behind the field: one learned colour, white, or a small network of the ray's direction."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.logits = nn.Parameter(torch.full((3,), INITIAL_BACKGROUND_LOGIT))
        elif kind == "network":
            self.network = nn.Sequential(nn.Linear(3 + 6 * ENVIRONMENT_FREQUENCIES, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours (n, 3) in [0, 1] seen along unit directions (n, 3)."""
        if self.kind == "white":
            return torch.ones_like(directions)
        if self.kind == "learned":
            return self.logits.sigmoid().expand_as(directions)
        scaled = torch.cat([directions * 2.0**octave for octave in range(ENVIRONMENT_FREQUENCIES)], dim=-1)
        return self.network(torch.cat([directions, scaled.sin(), scaled.cos()], dim=-1)).sigmoid()
