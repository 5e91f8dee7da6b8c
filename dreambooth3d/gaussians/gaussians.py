"""3D Gaussians: what is seen is composited from coloured, soft ellipsoids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.cameras import Viewpoints
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import RegularizerConfig
from dreambooth3d.config.gaussians import GaussiansConfig, Rasterizer
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.gaussians import density_control, starting
from dreambooth3d.gaussians.compositing import MIN_ALPHA
from dreambooth3d.gaussians.fitting import fit_to_renders
from dreambooth3d.gaussians.projection import Splats
from dreambooth3d.gaussians.rasterization import Raster, chosen_rasterizer, rasterize
from dreambooth3d.gaussians.solid import Solid
from dreambooth3d.gaussians.starting import Start
from dreambooth3d.gaussians.views import Views
from dreambooth3d.representation.going_on import gone_on
from dreambooth3d.representation.interface import (
    ALBEDO,
    SAMPLES_PER_RAY,
    ParameterGroup,
    PixelRendering,
    Position,
    Rendering,
    Representation,
    TrainingViews,
    ViewPixels,
)
from dreambooth3d.representation.shading import Shading

INITIAL_BACKGROUND_LOGIT = 0.8
PIXEL_BLUR = 0.03
"""Standard deviation in world units by which pixels of small images blur: half a pixel of 32 at the usual distance."""
OF_EACH = ("positions", "log_scales", "rotations", "opacity_logits", "color_logits")
"""Parameters with one entry for each Gaussian."""
COUNTED = ("pull", "seen")
"""Buffers with one entry for each Gaussian."""


class Gaussians(Representation):
    """Positions, scales, rotations, opacities and colours that do not depend on the view, of n Gaussians.

    Moves are kept in buffers (world = `stretch` * `turn` @ own + `shift`), so that an optimiser's moments stay true.
    See `Representation` for what is not described here.

    Args:
        config: how they learn, are added and removed, and are rasterised.
        start: what they begin with.
        device: where they live; decides what `implementation: auto` means.
    """

    kind: ClassVar[str] = "gaussians"
    fixed_size: ClassVar[bool] = False
    turn: Float[Tensor, "3 3"]
    shift: Float[Tensor, " 3"]
    stretch: Float[Tensor, ""]
    pull: Float[Tensor, " n"]
    seen: Float[Tensor, " n"]

    def __init__(self, config: GaussiansConfig, start: Start, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(start.positions.clone())
        self.log_scales = nn.Parameter(start.scales.clamp(min=1e-6).log())
        self.rotations = nn.Parameter(start.rotations.clone())
        self.opacity_logits = nn.Parameter(start.opacities.logit(eps=1e-4))
        self.color_logits = nn.Parameter(start.colors.logit(eps=1e-2))
        if config.background == "learned":
            self.background_logits = nn.Parameter(torch.full((3,), INITIAL_BACKGROUND_LOGIT))
        self.register_buffer("turn", torch.eye(3))
        self.register_buffer("shift", torch.zeros(3))
        self.register_buffer("stretch", torch.ones(()))
        # The sum of the lengths of the view-space gradients, and in how many views each was.
        self.register_buffer("pull", torch.zeros(len(start.positions)))
        self.register_buffer("seen", torch.zeros(len(start.positions)))
        self._kept_solid: tuple[tuple[tuple[int, int], ...], Solid] | None = None
        self.to(device)
        self.rasterizer: Rasterizer = chosen_rasterizer(config.implementation, self.device)

    @classmethod
    def fresh(cls, settings: Section, render: RenderConfig, device: torch.device | str) -> Self:
        """Soft ones in a ball about the origin."""
        config = GaussiansConfig.model_validate(settings)
        return cls(config, starting.ball(config.count, config.initial_radius, config.initial_opacity), device)

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "n 3"],
        colors: Float[Tensor, "n 3"],
        config: GaussiansConfig = GaussiansConfig(),
        normals: Float[Tensor, "n 3"] | None = None,
    ) -> Self:
        """One at each of some points, on the points' device.

        Args:
            points: (n, 3) in world units.
            colors: (n, 3) in [0, 1].
            normals: (n, 3) of unit length, across which they are thin, or None for round ones.
        """
        return cls(config, starting.on_points(points, colors, normals=normals), points.device)

    @classmethod
    def converted(
        cls, source: Representation, settings: Section | None, render: RenderConfig, device: torch.device | str
    ) -> Self:
        """On the surface that is seen of the other asset, with its colours, then fitted to its renders.

        Raises:
            ConfigError: nothing opaque is seen of it.
        """
        config = GaussiansConfig() if settings is None else GaussiansConfig.model_validate(settings)
        start = starting.on_what_is_seen(source, config.count)
        if start is None:
            raise ConfigError(
                f"representation: the {source.kind} to go on from is nowhere opaque, so there is nothing to put "
                "gaussians on. Train it longer, or leave representation out."
            )
        made = cls(config, start, device)
        if config.fit_steps > 0:
            fit_to_renders(made, source, config.fit_steps, render.size)
        return made

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], settings: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Self:
        """See `Representation`. Where the configured rasteriser cannot be used, `auto` is."""
        config, ones = GaussiansConfig.model_validate(dict(settings)), torch.ones(len(state["positions"]), 3)
        try:
            chosen_rasterizer(config.implementation, torch.device(device))
        except ConfigError:
            config = config.model_copy(update={"implementation": "auto"})
        made = cls(config, Start(ones, ones, torch.ones(len(ones), 4), ones[:, 0] / 2, ones), device)
        made.load(state)
        return made

    def settings(self) -> dict[str, object]:
        """`GaussiansConfig` as plain values."""
        return self.config.model_dump(mode="json")

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See `Representation`."""
        count = len(state["positions"])
        if count != len(self):
            for name in OF_EACH:
                old = getattr(self, name)
                setattr(self, name, nn.Parameter(old.new_zeros(count, *old.shape[1:]), old.requires_grad))
            for name in COUNTED:
                setattr(self, name, self.pull.new_zeros(count))
        super().load(state)

    def __len__(self) -> int:
        return len(self.positions)

    # Looking at them.

    def radii(self) -> Float[Tensor, "n 3"]:
        """(n, 3) standard deviations along their axes in world units."""
        return self.stretch * (torch.exp(2 * self.log_scales) + self.config.min_radius**2).sqrt()

    def axes(self) -> Float[Tensor, "n 3 3"]:
        """(n, 3, 3) whose columns are their axes in the world, of unit length."""
        return self.turn @ rotation_matrices(self.rotations)

    def means(self) -> Float[Tensor, "n 3"]:
        """(n, 3) their middles in the world."""
        return self.stretch * (self.positions @ self.turn.T) + self.shift

    def opacities(self) -> Float[Tensor, " n"]:
        """(n,) in their middles, in [0, 1]."""
        return self.opacity_logits.sigmoid()

    def colors(self) -> Float[Tensor, "n 3"]:
        """(n, 3) albedo in [0, 1]."""
        return self.color_logits.sigmoid()

    def splats(self) -> Splats:
        """As they are rasterised."""
        spread = self.axes() * self.radii()[:, None]
        return Splats(self.means(), spread @ spread.transpose(1, 2), self.opacities(), self.colors())

    def background(self) -> Float[Tensor, " 3"]:
        """(3,) colour behind them."""
        if self.config.background == "white":
            return torch.ones_like(self.shift)
        return self.background_logits.sigmoid()

    def _views(self, cameras: Viewpoints, size: int) -> Views:
        return Views.of(self._raster(cameras, size, size), cameras, size)

    def _raster(self, cameras: Viewpoints, height: int, width: int, places: Tensor | None = None) -> Raster:
        """Of cameras on this device; gradients of what was seen are counted in the backward pass."""
        return rasterize(
            self.splats(), cameras, height, width, implementation=self.rasterizer, places=places, watch=self._count
        )

    def _count(self, lengths: Tensor, seen: Tensor) -> None:
        if lengths.shape[1] == len(self):
            self.pull += (lengths * seen).sum(0)
            self.seen += (seen & (lengths > 0)).sum(0)

    @torch.no_grad()
    def render(
        self,
        cameras: Viewpoints,
        size: int,
        *,
        samples_per_ray: int = SAMPLES_PER_RAY,
        background: str | Float[Tensor, " 3"] = "white",
        with_normals: bool = False,
    ) -> Rendering:
        """Whole views are rasterised, without samples along rays."""
        behind = self._behind(background)
        views = self._views(cameras.to(self.device), size)
        color = views.color + (1 - views.opacity)[..., None] * behind
        return Rendering(
            color.permute(0, 3, 1, 2).clamp(0, 1),
            views.opacity.clamp(0, 1),
            views.depth,
            views.normals().permute(0, 3, 1, 2) if with_normals else None,
        )

    def _behind(self, background: str | Tensor) -> Float[Tensor, " 3"]:
        if isinstance(background, Tensor):
            return background.to(self.shift)
        if background == "own":
            return self.background()
        if background == "white":
            return torch.ones_like(self.shift)
        raise ValueError(f"background={background!r}: expected 'white', 'own' or a colour tensor of shape (3,).")

    @torch.no_grad()
    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Around the ellipsoids up to where they cannot be seen any more, as small images blur them."""
        splats = self.splats()
        shown = splats.opacities > MIN_ALPHA
        if not shown.any():
            return torch.zeros_like(self.shift), torch.zeros_like(self.shift)
        reach = (2 * torch.log(splats.opacities[shown] / MIN_ALPHA)).sqrt()
        spread = splats.covariances[shown].diagonal(dim1=1, dim2=2) + PIXEL_BLUR**2
        half, middle = reach[:, None] * spread.sqrt(), splats.means[shown]
        return (middle - half).amin(0).clamp(-1, 1), (middle + half).amax(0).clamp(-1, 1)

    @torch.no_grad()
    def density_and_color(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Of the solid that they show from outside; see `solid.Solid`."""
        low, high = self.bounds()
        if not (high > low).all():
            return torch.zeros_like(points[:, 0]), torch.zeros_like(points)
        return self._solid(low, high).density_and_color(points)

    def _solid(self, low: Tensor, high: Tensor) -> Solid:
        """The solid, kept until a parameter or a buffer is written to, as meshes ask for it many times."""
        values = [*self.parameters(), *self.buffers()]
        version = tuple((id(value), value._version) for value in values)
        if self._kept_solid is None or self._kept_solid[0] != version:
            self._kept_solid = version, Solid.of(self._views, low, high)
        return self._kept_solid[1]

    def mark_changed(self) -> None:
        """The solid has to be found anew."""
        self._kept_solid = None

    # Moving them.

    @torch.no_grad()
    def move(
        self, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, " 3"] | None = None, scale: float = 1.0
    ) -> None:
        """See `Representation`."""
        self.turn.copy_(rotation @ self.turn)
        self.shift.copy_(scale * (rotation @ self.shift + (0 if shift is None else shift)))
        self.stretch.mul_(scale)
        self.mark_changed()

    # Learning.

    def parameter_groups(self) -> list[ParameterGroup]:
        """One for each property."""
        config = self.config
        rates = (config.position_rate, config.scale_rate, config.rotation_rate, config.opacity_rate, config.color_rate)
        groups = [ParameterGroup(name, [getattr(self, name)], rate) for name, rate in zip(OF_EACH, rates, strict=True)]
        if config.background == "learned":
            groups.append(ParameterGroup("background", [self.background_logits]))
        return groups

    def go_on(self, settings: Section) -> None:
        """Rates, density control and rasteriser."""
        self.config = gone_on(self.kind, self.config, GaussiansConfig.model_validate(settings))
        self.rasterizer = chosen_rasterizer(self.config.implementation, self.device)

    def begin_stage(self, render: RenderConfig, fresh: bool) -> None:
        """Gradients are counted anew."""
        super().begin_stage(render, fresh)
        self.pull.zero_()
        self.seen.zero_()

    @torch.no_grad()
    def after_step(self, position: Position, optimizer: torch.optim.Optimizer) -> bool:
        """Add Gaussians where gradients are large, remove those that are not seen, lower opacities, when it is time."""
        self.mark_changed()
        changed = density_control.due(self.config, position)
        if changed:
            self._adapt(optimizer)
        if density_control.reset_due(self.config, position):
            self._lower_opacities(optimizer)
            changed = True
        return changed

    def _adapt(self, optimizer: torch.optim.Optimizer) -> None:
        """Clone, split and prune."""
        radius, pull = self.radii().amax(dim=1), self.pull / self.seen.clamp(min=1)
        change = density_control.planned(self.config, density_control.Census(pull, radius, self.opacities()))
        values = {name: getattr(self, name).detach()[change.sources].clone() for name in OF_EACH}
        first, second = change.kept, change.kept + change.cloned
        if change.cloned and self.positions.grad is not None:
            cloned = change.sources[first:second]
            own = radius[cloned] / self.stretch
            values["positions"][first:second] += density_control.clone_offsets(own, self.positions.grad[cloned])
        if change.split:
            axes = rotation_matrices(values["rotations"][second:])
            scales, offset = density_control.halves(values["log_scales"][second:], axes)
            offset[: len(offset) // 2] *= -1
            values["log_scales"][second:] = scales
            values["positions"][second:] += offset
        replaced = {}
        for name, value in values.items():
            old, new = getattr(self, name), nn.Parameter(value)
            setattr(self, name, new)
            replaced[old] = new
        density_control.replace_parameters(optimizer, replaced, change)
        for name in COUNTED:
            setattr(self, name, torch.zeros_like(values["opacity_logits"]))

    def _lower_opacities(self, optimizer: torch.optim.Optimizer) -> None:
        """To twice the opacity from which Gaussians are kept, at most."""
        limit = torch.tensor(2 * self.config.prune_opacity).clamp(max=0.99).logit(eps=1e-4).item()
        self.opacity_logits.clamp_(max=limit)
        for value in optimizer.state.get(self.opacity_logits, {}).values():
            if torch.is_tensor(value) and value.shape == self.opacity_logits.shape:
                value.zero_()

    def render_views(
        self,
        cameras: Viewpoints,
        size: int,
        *,
        background: Float[Tensor, "n 3"] | None = None,
        shading: Shading = ALBEDO,
        generator: torch.Generator | None = None,
        regularizers: RegularizerConfig | None = None,
        with_normals: bool = False,
    ) -> TrainingViews:
        """See `Representation`; nothing is jittered, and there are no regularisers of their own."""
        device = self.device
        views = self._views(cameras.to(device), size)
        behind = self.background().expand(len(cameras), 3) if background is None else background.to(device)
        color = views.shaded(shading.map(lambda light: light.to(device)))
        color = color + (1 - views.opacity)[..., None] * behind[:, None, None]
        normals = views.normals().permute(0, 3, 1, 2) if with_normals else None
        return TrainingViews(color.permute(0, 3, 1, 2), views.opacity, views.depth, normals, haze=self.opacities())

    def render_pixels(
        self, pixels: ViewPixels, generator: torch.Generator | None = None, ready: torch.cuda.Event | None = None
    ) -> PixelRendering:
        """Only what covers the pixels is composited."""
        cameras = pixels.cameras.to(self.device)
        raster = self._raster(cameras, pixels.height, pixels.width, pixels.places.to(self.device))
        return PixelRendering(raster.features, raster.opacity)

    def figures(self) -> dict[str, float]:
        """How many there are, and how large and opaque they are."""
        return {
            "gaussians": float(len(self)),
            "gaussian_radius": self.radii().detach().amax(dim=1).mean().item(),
            "gaussian_opacity": self.opacities().detach().mean().item(),
        }


def rotation_matrices(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """(n, 3, 3) rotations of quaternions (n, 4) of any length, the real part first."""
    w, x, y, z = nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=1)
