"""The radiance field: density and albedo inside the unit ball, and what lies behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreambooth3d.cameras import Viewpoints
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field import regularizers as own
from dreambooth3d.nerf.field.encoding import LOGITS
from dreambooth3d.nerf.field.encodings import make_encoding
from dreambooth3d.nerf.field.latents import LATENTS, LatentHead, LatentVolume
from dreambooth3d.nerf.rendering.aside import aside, sample_aside
from dreambooth3d.nerf.rendering.occupancy import CHUNK, OccupancyGrid
from dreambooth3d.nerf.rendering.sampling import BALL_RADIUS, DenseSampler, Sampler, make_sampler
from dreambooth3d.nerf.rendering.volume import (
    CameraRendering,
    render_cameras,
    render_images,
    render_rays,
    sample_cameras,
)
from dreambooth3d.representation.interface import (
    ALBEDO,
    SAMPLES_PER_RAY,
    Losses,
    ParameterGroup,
    PixelRendering,
    Position,
    Rendering,
    Representation,
    TrainingViews,
    ViewPixels,
)
from dreambooth3d.representation.latents import LatentColors
from dreambooth3d.representation.shading import Shading

OCCUPANCY_WARMUP = 32
"""Steps before empty space is skipped, so that the field may first grow anywhere."""
INITIAL_BACKGROUND_LOGIT = 0.8
ENVIRONMENT_FREQUENCIES = 3
ENVIRONMENT_PIXELS = (32, 64)
"""Height and width of the picture behind the field."""
DISTANCE_SLOPE = 20.0
"""Logits per world unit of depth below the surface: a fresh ball has then the slope of a fresh blob."""
SHARPNESS_RANGE = (5.0, 200.0)
"""In inverse world units."""
TETRAHEDRON = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


class Field(Representation):
    """Density and albedo on an encoding, with the occupancy grid that says where there is anything.

    One that begins in a stage which renders latents holds these in place of albedo, which it mixes of them. With
    `geometry: sdf` the first logit is the depth below a surface, in `1 / DISTANCE_SLOPE` of the encoding's frame, and
    density is made of it.

    See `Representation` for what is not described here.

    Args:
        config: which encoding, the initial blob, the background.
        device: where it lives; decides what `implementation: auto` means.
        occupancy_resolution: cells per side of the occupancy grid.
        latent: whether it holds latents.
    """

    kind: ClassVar[str] = "field"
    turn: Float[Tensor, "3 3"]
    shift: Float[Tensor, " 3"]
    stretch: Float[Tensor, ""]
    tetrahedron: Float[Tensor, "4 3"]

    def __init__(
        self,
        config: FieldConfig,
        device: torch.device | str = "cpu",
        occupancy_resolution: int = 32,
        latent: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.latent_head = LatentHead() if latent else None
        self._logit_count = 1 + LATENTS if latent else LOGITS
        self.encoding = make_encoding(config, device, self._logit_count)
        if self.encoding.holds_density:
            self.encoding.add_density(self._blob)
        self.head = self.encoding.make_head(config.hidden_width, self._logit_count)
        self.background = Background(config.background)
        if config.geometry == "sdf":
            low, high = SHARPNESS_RANGE
            share = math.log(config.initial_sharpness / low) / math.log(high / low)
            self.sharpness_logit = nn.Parameter(torch.tensor(share).logit(eps=1e-3))
        self.register_buffer("turn", torch.eye(3))
        self.register_buffer("shift", torch.zeros(3))
        self.register_buffer("stretch", torch.ones(()))
        self.register_buffer("tetrahedron", torch.tensor(TETRAHEDRON), persistent=False)
        self.occupancy = OccupancyGrid(occupancy_resolution)
        self._stage, self._fresh = RenderConfig(), False
        self._sampler: Sampler | None = None
        self.to(device)
        self.mark_changed()

    @classmethod
    def fresh(cls, settings: Section, render: RenderConfig, device: torch.device | str) -> Self:
        """A soft ball of density around the origin."""
        latent = render.space == "latent"
        return cls(FieldConfig.model_validate(settings), device, render.occupancy_resolution, latent)

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], settings: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Self:
        """See `Representation`.

        The hash grid's implementations share their parameters: where the configured one cannot be used, `auto` is.
        """
        config, resolution = FieldConfig.model_validate(dict(settings)), state["occupancy.density"].shape[0]
        latent = "latent_head.decoder" in state
        try:
            field = cls(config, device, resolution, latent)
        except ConfigError:
            field = cls(config.model_copy(update={"implementation": "auto"}), device, resolution, latent)
        field.load(state)
        return field

    def settings(self) -> dict[str, object]:
        """`FieldConfig` as plain values."""
        return self.config.model_dump()

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.occupancy.density.device

    def mark_changed(self) -> None:
        """Streams that look at the occupancy wait for what the current one has been given so far."""
        self.occupancy.mark_changed()

    def _blob(self, points: Tensor) -> Tensor:
        """(n,) initial first logits.

        With a density a soft ball around the origin, bounded below so that its outside stays alive; with a signed
        distance that of a ball.

        Source: Poole et al. 2022, "DreamFusion", appendix A.2, in the linear form of Lin et al. 2023, "Magic3D".
        """
        config = self.config
        if config.geometry == "sdf":
            return DISTANCE_SLOPE * (config.blob_radius - points.norm(dim=-1))
        return config.blob_density * (1 - points.norm(dim=-1) / config.blob_radius).clamp(min=-1)

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n logits"]:
        """(n, 4) logits of density and colour at points (n, 3) in world units; (n, 5) with latents for colour."""
        return self._first_logits(self._own(points), self._logit_count)

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
        """(n,) density of logits (n,) at points (n, 3) in the encoding's frame: softplus, 0 outside its unit ball.

        Of a signed distance it is sharpness * the Laplace distribution's cumulative function of the depth, with the
        scale 1 / sharpness.

        Source: Yariv et al. 2021, "Volume Rendering of Neural Implicit Surfaces" (VolSDF), eq. 2 and 3.
        """
        inside = (own.norm(dim=-1) < BALL_RADIUS) * self.stretch
        if self.config.geometry == "density":
            return nn.functional.softplus(logits) * (inside * self.config.density_scale)
        scaled = self.sharpness * logits / DISTANCE_SLOPE
        tail = 0.5 * (-scaled.abs()).exp()
        return self.sharpness * torch.where(scaled > 0, 1 - tail, tail) * inside

    @property
    def sharpness(self) -> Float[Tensor, ""]:
        """Density deep inside a signed distance, in inverse units of the encoding's frame."""
        low, high = SHARPNESS_RANGE
        return low * (self.sharpness_logit.sigmoid() * math.log(high / low)).exp()

    def signed_distance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """(n,) signed distance in world units at points (n, 3), negative inside; only with `geometry: sdf`."""
        depth = self._first_logits(self._own(points), 1)[:, 0] / DISTANCE_SLOPE
        return -depth / self.stretch

    def distance_gradient(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """(n, 3) gradient of the signed distance at points (n, 3) of the encoding's frame, with `geometry: sdf`."""
        step, corners = self.encoding.normal_step, self.tetrahedron
        shifted = (points[None] + step * corners[:, None]).view(-1, 3)
        depth = self._first_logits(shifted, 1)[:, 0].view(4, -1) / DISTANCE_SLOPE
        return -(depth.t() @ corners) / (4 * step)

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """(n,) density in inverse world units at points (n, 3); cheaper than with colours on a dense volume."""
        own = self._own(points)
        return self._activate_density(self._first_logits(own, 1)[:, 0], own)

    def density_and_color(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Density (n,) in inverse world units and albedo (n, 3) in [0, 1] at points (n, 3) in world units."""
        density, held = self.density_and_held(points)
        return density, held.sigmoid() if self.latent_head is None else self.latent_head.colors(held)

    def density_and_held(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n channels"]]:
        """Density (n,) as `density_and_color`, and what it holds for colour: logits (n, 3), or latents."""
        own = self._own(points)
        logits = self._first_logits(own, self._logit_count)
        return self._activate_density(logits[:, 0], own), logits[:, 1:]

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

    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """The box around the occupied cells, inside that around its own unit ball."""
        cells = self.occupancy.occupied.nonzero()
        if len(cells) == 0:
            return torch.zeros_like(self.shift), torch.zeros_like(self.shift)
        width, radius = 2 / self.occupancy.resolution, BALL_RADIUS / self.stretch
        centre = -(self.shift @ self.turn.t()) / self.stretch.square()
        low, high = cells.amin(dim=0) * width - 1, (cells.amax(dim=0) + 1) * width - 1
        return torch.maximum(low, centre - radius), torch.minimum(high, centre + radius)

    def render(
        self,
        cameras: Viewpoints,
        size: int,
        *,
        samples_per_ray: int = SAMPLES_PER_RAY,
        background: str | Float[Tensor, " 3"] = "white",
        with_normals: bool = False,
    ) -> Rendering:
        """Volume rendering with as many intervals between a ray's bounds in the unit ball; empty ones cost little."""
        return render_images(
            self,
            cameras.to(self.device),
            size=size,
            sampler=DenseSampler(samples_per_ray),
            background=background,
            with_normals=with_normals,
        )

    @torch.no_grad()
    def filled_share(self, threshold: float) -> float:
        """Share of the unit ball's occupancy cells with density in their middle, now.

        The occupancy grid itself remembers density that has gone and adds a margin.
        """
        cells = self.occupancy.resolution
        axis = (torch.arange(cells, device=self.device) + 0.5) * (2.0 / cells) - 1.0
        points = torch.cartesian_prod(axis, axis, axis)
        inside = points[points.norm(dim=-1) < BALL_RADIUS]
        density = torch.cat([self.density(part) for part in inside.split(CHUNK)])
        return ((1 - torch.exp(-density * (2.0 / cells))) > threshold).float().mean().item()

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group, and one of the sharpness of a signed distance."""
        if self.config.geometry == "density":
            return [ParameterGroup("field", list(self.parameters()))]
        others = [parameter for parameter in self.parameters() if parameter is not self.sharpness_logit]
        return [
            ParameterGroup("field", others),
            ParameterGroup("sharpness", [self.sharpness_logit], self.config.sharpness_rate),
        ]

    def begin_stage(self, render: RenderConfig, fresh: bool) -> None:
        """Which sampler, when to look for density, and what guidance sees."""
        if render.space == "latent" and self.latent_head is None:
            raise ConfigError(
                "render.space: latent cannot go on from a field that holds colours. Set it in init_nerf.render, where "
                "the field begins, or set render.space to rgb."
            )
        self._stage, self._fresh, self._sampler = render, fresh, None

    def take_latents(self, colors: LatentColors) -> None:
        """See `Representation`."""
        if self.latent_head is None:
            super().take_latents(colors)
        else:
            self.latent_head.take(colors)

    @property
    def sampler(self) -> Sampler:
        """Of training views, as the stage asks for it."""
        if self._sampler is None:
            self._sampler = make_sampler(self._stage, self.device)
        return self._sampler

    def before_step(self, position: Position, generator: torch.Generator) -> None:
        """Look where the field has density; a fresh one counts as occupied everywhere at first."""
        warm = not self._fresh or position.step >= OCCUPANCY_WARMUP
        if warm and position.step % self._stage.occupancy_every == 0:
            self.refresh(generator)

    def refresh(self, generator: torch.Generator) -> None:
        """Update the occupancy."""
        self.occupancy.update(self.density, self._stage.occupancy_threshold, generator)

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
        """Samples are taken beside the main stream (`nerf.rendering.aside`)."""
        device = self.device
        shown = self._shown_to_guidance()
        with aside(device, self.occupancy.changed) as handover:
            placed, shading = cameras.to(device), shading.map(lambda light: light.to(device))
            background = None if background is None else background.to(device)
            if background is not None and isinstance(shown, LatentVolume):
                background = shown.head.latents(background)
            sampled = sample_cameras(self, placed, size, self.sampler, generator)
            handover.give(placed, shading, background, sampled)
        rendering = render_cameras(
            shown,
            placed,
            size,
            sampler=self.sampler,
            background=background,
            generator=generator,
            shading=shading,
            with_normals=with_normals or (regularizers is not None and regularizers.orientation > 0),
            sampled=sampled,
        )
        rays, count = rendering.rays, len(placed)
        opacity = rays.opacity.view(count, size, size)
        normals = rays.pixel_normals().view(count, size, size, 3).permute(0, 3, 1, 2) if with_normals else None
        return TrainingViews(
            rendering.images,
            opacity,
            rays.depth.view(count, size, size),
            normals,
            {} if regularizers is None else _ray_losses(regularizers, rendering, sampled.directions),
            haze=opacity,
            figures={"evaluated_samples": len(rays.weights)},
        )

    def _shown_to_guidance(self) -> Field | LatentVolume:
        """Itself, or its latents."""
        if self._stage.space == "rgb" or self.latent_head is None:
            return self
        return LatentVolume(self, self.latent_head)

    def render_pixels(
        self, pixels: ViewPixels, generator: torch.Generator | None = None, ready: torch.cuda.Event | None = None
    ) -> PixelRendering:
        """Along the pixels' rays, sampled beside the main stream."""
        rays = (pixels.origins, pixels.directions)
        samples = sample_aside(*rays, self.sampler, self.occupancy, generator, ready)
        shown = render_rays(self, *rays, sampler=self.sampler, generator=generator, samples=samples)
        return PixelRendering(shown.color, shown.opacity)

    def shape_losses(self, regularizers: RegularizerConfig, generator: torch.Generator) -> Losses:
        """Smoothness of the logits, and a signed distance's own."""
        parts: Losses = {}
        if regularizers.smoothness > 0:
            # A signed distance has a slope to keep: only the colours beside it are to be even.
            first = 1 if self.config.geometry == "sdf" else 0
            parts["smoothness"] = (regularizers.smoothness, own.smoothness(self, generator, first))
        if self.config.geometry == "sdf" and self.config.eikonal > 0:
            parts["eikonal"] = (self.config.eikonal, own.eikonal(self, generator))
        return parts

    def level_gradients(self) -> list[Tensor]:
        """Of the encoding."""
        return self.encoding.level_gradients()

    def figures(self) -> dict[str, float]:
        """What the occupancy remembers, and the sharpness of a signed distance."""
        figures = {
            "density_max": self.occupancy.density.max().item(),
            "occupied_share": self.occupancy.occupied.float().mean().item(),
        }
        return figures if self.config.geometry == "density" else figures | {"sharpness": self.sharpness.item()}


def _ray_losses(weights: RegularizerConfig, rendering: CameraRendering, directions: Float[Tensor, "rays 3"]) -> Losses:
    """The regularisers in force of what rays have met; each is a mean over rays."""
    rays = rendering.rays
    parts: Losses = {}
    if weights.orientation > 0:
        parts["orientation"] = (weights.orientation, own.orientation(rays, directions))
    if weights.distortion > 0:
        parts["distortion"] = (weights.distortion, own.distortion(rays.samples, rays.weights))
    if weights.emptiness > 0:
        parts["emptiness"] = (weights.emptiness, own.emptiness(rays.samples, rays.weights, weights.emptiness_scale))
    if weights.depth_variance > 0:
        value = own.depth_variance(rays.samples, rays.weights, rays.opacity)
        parts["depth_variance"] = (weights.depth_variance, value)
    return parts


class Background(nn.Module):
    """What lies behind the field: one learned colour, white, or by direction a picture or a small network."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.logits = nn.Parameter(torch.full((3,), INITIAL_BACKGROUND_LOGIT))
        elif kind == "texture":
            height, width = ENVIRONMENT_PIXELS
            self.picture = nn.Parameter(torch.full((1, 3, height, width), INITIAL_BACKGROUND_LOGIT))
        elif kind == "network":
            self.network = nn.Sequential(nn.Linear(3 + 6 * ENVIRONMENT_FREQUENCIES, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours (n, 3) in [0, 1] seen along unit directions (n, 3)."""
        if self.kind == "white":
            return torch.ones_like(directions)
        if self.kind == "learned":
            return self.logits.sigmoid().expand_as(directions)
        if self.kind == "texture":
            return _picture_at(self.picture, directions).sigmoid()
        scaled = torch.cat([directions * 2.0**octave for octave in range(ENVIRONMENT_FREQUENCIES)], dim=-1)
        return self.network(torch.cat([directions, scaled.sin(), scaled.cos()], dim=-1)).sigmoid()


def _picture_at(picture: Float[Tensor, "1 channels height width"], directions: Tensor) -> Float[Tensor, "n channels"]:
    """(n, channels) of a picture over longitude and latitude, seen along unit directions (n, 3).

    The front, +x, is in its middle and z at its upper border; left and right border meet.
    """
    x, y, z = directions.unbind(-1)
    column = 0.5 - torch.atan2(y, x) / (2 * math.pi)
    row = torch.acos(z.clamp(-1 + 1e-6, 1 - 1e-6)) / math.pi
    width = picture.shape[-1]
    closed = torch.cat([picture[..., -1:], picture, picture[..., :1]], dim=-1)
    place = torch.stack([2 * (column * width + 1) / (width + 2) - 1, 2 * row - 1], dim=-1)
    found = nn.functional.grid_sample(closed, place.view(1, 1, -1, 2), align_corners=False, padding_mode="border")
    return found[0, :, 0].t()
