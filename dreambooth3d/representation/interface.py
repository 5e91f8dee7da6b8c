"""What every stage asks of an asset, whatever it is made of: a radiance field, a mesh, Gaussians.

Distillation, reconstruction, evaluation, pseudo views, previews and export know an asset as a `Representation` only.
To add a kind:

1. Derive a class from `Representation`, with its name as `kind`. Methods without a body here have to be written; the
   others have a default that suits an asset of which nothing special is asked.
2. Give it a settings model, a `config.base.Section`: name it in `config.representation.SETTINGS`, and add a section of
   the kind's name to `config.distillation.DistillConfig`. In `learning` it names the settings that also hold in a stage
   which goes on from such an asset (`going_on.gone_on`).
3. Name the class in `kinds.KINDS`.
4. Name an asset of it in `tests/representation/test_conformance.py`, which checks all that is promised here.

World: z up, right-handed, the subject inside the unit ball, its front towards +x; poses as in `dreambooth3d.cameras`.
Colours are in [0, 1] as they look in an image (sRGB).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Viewpoints
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import RegularizerConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.record import StepRecord
from dreambooth3d.representation.latents import LatentColors
from dreambooth3d.representation.shading import Shading

ALBEDO = Shading()
SAMPLES_PER_RAY = 64
BALL_CELLS = 32
Losses = dict[str, tuple[float, Tensor]]
"""By name (weight, value) of scalar losses; a name becomes that of a figure in the stage's log."""


@dataclass(frozen=True)
class Rendering:
    """Images of an asset for looking at.

    Attributes:
        color: (n, 3, height, width) in [0, 1], over the background.
        opacity: (n, height, width) in [0, 1].
        depth: (n, height, width) expected distance along the ray in world units, 0 where there is nothing.
        normals: (n, 3, height, width) outward in world coordinates, of unit length where there is something and 0
            elsewhere; None if nobody asked.
    """

    color: Float[Tensor, "n 3 height width"]
    opacity: Float[Tensor, "n height width"]
    depth: Float[Tensor, "n height width"]
    normals: Float[Tensor, "n 3 height width"] | None = None

    def cpu(self) -> Rendering:
        """The same on the CPU."""
        normals = None if self.normals is None else self.normals.cpu()
        return Rendering(self.color.cpu(), self.opacity.cpu(), self.depth.cpu(), normals)


@dataclass(frozen=True)
class TrainingViews:
    """Images of an asset that it learns from: differentiable in its parameters.

    Attributes:
        color: (n, 3, size, size) in [0, 1], over the background; (n, channels, size, size) latents where the stage
            renders these (`RenderConfig.space`).
        opacity: (n, size, size) in [0, 1].
        depth: (n, size, size) as in `Rendering`.
        normals: (n, 3, size, size) as in `Rendering`, or None if nobody asked.
        losses: the kind's own regularisers of these views; each a mean over pixels, so that those of a part of the
            views, weighted by its share, add up.
        haze: opacities in [0, 1], of rays or of whatever the asset is made of, as the regularisers of the opacity see
            them: differentiable in how opaque it is, never in where. None of a kind that is opaque throughout, which
            these could only draw in at its outline.
        figures: for the log, to be added up over parts of the views.
    """

    color: Float[Tensor, "n channels size size"]
    opacity: Float[Tensor, "n size size"]
    depth: Float[Tensor, "n size size"]
    normals: Float[Tensor, "n 3 size size"] | None = None
    losses: Losses = field(default_factory=dict)
    haze: Float[Tensor, "*parts"] | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Triangles:
    """A surface, on any device.

    One that is `given` is a mesh that the user gave, whose vertices and triangles are kept as they are: its colours are
    asked for by `Representation.albedo_at`.

    Attributes:
        vertices: (v, 3) in world units.
        faces: (f, 3) vertices of each triangle, counter-clockwise seen from outside.
        colors: (v, 3) albedo in [0, 1].
        given: see above.
        uv: (v, 2) the given mesh's own UV map, from its image's left and lower edge; None where it has none.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    colors: Float[Tensor, "v 3"]
    given: bool = False
    uv: Float[Tensor, "v 2"] | None = None


@dataclass(frozen=True)
class SurfaceMaterial:
    """What n points of a surface are made of, physically based, as in glTF.

    Attributes:
        base: (n, 3) base colour in [0, 1].
        roughness: (n,) in [0, 1].
        metallic: (n,) in [0, 1].
        normals: (n, 3) of unit length, as light sees them, in the world.
    """

    base: Float[Tensor, "n 3"]
    roughness: Float[Tensor, " n"]
    metallic: Float[Tensor, " n"]
    normals: Float[Tensor, "n 3"]


@dataclass(frozen=True)
class ViewPixels:
    """Pixels of views, at the same places in each. Kinds that trace rays use the rays; others render whole views.

    Attributes:
        cameras: the n cameras, which may ask for gradients.
        height, width: of the views in pixels.
        places: (k,) row * width + column of the pixels.
        origins, directions: (n * k, 3) rays through the pixels' centres, view by view; directions of unit length.
    """

    cameras: Viewpoints
    height: int
    width: int
    places: Int[Tensor, " k"]
    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]

    @staticmethod
    def of(cameras: Viewpoints, height: int, width: int, places: Int[Tensor, " k"]) -> ViewPixels:
        """The pixels at `places` of n cameras' views, on the cameras' device."""
        origins, directions = (rays.flatten(1, 2)[:, places].reshape(-1, 3) for rays in cameras.rays(height, width))
        return ViewPixels(cameras, height, width, places, origins, directions)

    def pick(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "rays channels"]:
        """(n * k, channels): these pixels of images (n, channels, height, width), for kinds that render whole views."""
        return images.flatten(2)[:, :, self.places].transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class PixelRendering:
    """Single pixels of an asset, differentiable in its parameters and in the cameras.

    Attributes:
        color: (rays, 3) without background: weighted by opacity.
        opacity: (rays,) in [0, 1].
    """

    color: Float[Tensor, "rays 3"]
    opacity: Float[Tensor, " rays"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: of the group, unique in its asset.
        parameters: leaves, at least one.
        rate_factor: factor on the stage's learning rate.
        shapes: whether they make the shape (True) or the appearance alone (False); None for both at once.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    rate_factor: float = 1.0
    shapes: bool | None = None


@dataclass(frozen=True)
class Position:
    """Where in a stage a step is.

    Attributes:
        step: number of steps before it, from 0.
        progress: in [0, 1].
    """

    step: int
    progress: float


def turn_about_z(angle_deg: float) -> Float[Tensor, "3 3"]:
    """(3, 3) rotation about z, counter-clockwise seen from above."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


class Representation(nn.Module, ABC):
    """An asset that can be rendered, learns from its renders, and is kept as an artifact.

    All that it remembers are parameters and buffers; what it would forget between two steps of a stage must be one of
    them, as a stage may be interrupted and resumed at any step. It can be copied with `copy.deepcopy` at any time, as
    running averages are.
    """

    kind: ClassVar[str]
    """Its name, as in `config.representation.SETTINGS`."""
    fixed_size: ClassVar[bool] = True
    """Whether the parameters keep their shapes while it learns. Otherwise one process alone can train it, and `load`
    takes a state of any size."""

    # Making and keeping.

    @classmethod
    @abstractmethod
    def fresh(cls, settings: Section, render: RenderConfig, device: torch.device | str) -> Self:
        """An asset to begin from without another: a blob at the origin.

        Args:
            settings: of the kind.
            render: of the stage; what of it shapes the asset, if anything.
            device: where it lives. Random values are drawn from PyTorch's global generator, which the caller seeds.
        """

    @classmethod
    def converted(
        cls, source: Representation, settings: Section | None, render: RenderConfig, device: torch.device | str
    ) -> Self:
        """An asset that begins as one of another kind looks; arguments as in `fresh`, settings None for the defaults.

        Raises:
            ConfigError: this kind cannot begin from that one.
        """
        raise ConfigError(
            f"representation: {cls.kind} cannot go on from {source.kind}. Leave representation out, so that the stage "
            f"goes on with {source.kind}."
        )

    @classmethod
    @abstractmethod
    def from_state(
        cls, state: Mapping[str, Tensor], settings: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Self:
        """Inverse of `state` and `settings`, on any device: renders the same images."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """The kind's settings as plain JSON values: those of `fresh`, with what else `from_state` needs."""

    def state(self) -> dict[str, Tensor]:
        """Everything that it remembers, on the CPU; shares no memory with it."""
        return {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take `state`, of any device, in place. Parameters may become other objects where `fixed_size` is False."""
        self.load_state_dict(dict(state))
        self.mark_changed()

    def artifact(self, previews: Float[Tensor, "n 3 height width"], steps: int, record: StepRecord) -> RadianceField:
        """As a stage hands it on; `kinds.load_representation` is the inverse."""
        return RadianceField(self.state(), self.settings(), previews, steps, record, kind=self.kind)

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return next(self.parameters()).device

    def mark_changed(self) -> None:
        """Parameters or buffers were written from outside; what is derived from them is out of date."""
        return

    # Looking at it.

    def unlit(self) -> Self:
        """The same, whose renders show base colours alone; itself for a kind whose renders always do."""
        return self

    @abstractmethod
    def render(
        self,
        cameras: Viewpoints,
        size: int,
        *,
        samples_per_ray: int = SAMPLES_PER_RAY,
        background: str | Float[Tensor, " 3"] = "white",
        with_normals: bool = False,
    ) -> Rendering:
        """Images for looking at: deterministic, without gradients, and without light (albedo) but for its own, if it
        has a material that an environment belongs to.

        Args:
            cameras: n, on any device.
            size: pixels per side.
            samples_per_ray: how finely it is sampled along rays; kinds that do not integrate along rays ignore it.
            background: `white`, `own` (what it has learned; white where it learns none), or one plain colour (3,).
            with_normals: return normals as well.

        Raises:
            ValueError: the background is none of these.
        """

    @abstractmethod
    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """(3,) lower and (3,) upper corner, inside [-1, 1]^3, of an upright box beyond which nothing is seen."""

    def density_and_color(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]] | None:
        """Density (n,) in inverse world units and albedo (n, 3) in [0, 1] at points (n, 3), on its device.

        For its mirror plane, its filled share, its surface and the colours there: a closed surface has a high density
        inside. None for a kind that cannot say; it is then neither turned to its mirror plane nor stood up.
        """
        return None

    def triangles(self) -> Triangles | None:
        """Its own triangles, of a kind that is made of them; None for others, of which density tells the surface."""
        return None

    def albedo_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"] | None:
        """(n, 3) albedo in [0, 1] at points (n, 3) of its surface; None for a kind that knows it elsewhere only."""
        return None

    def surface_material(self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> SurfaceMaterial | None:
        """What it is made of at points (n, 3) of its surface with unit normals (n, 3); None where that is colours."""
        return None

    @torch.no_grad()
    def filled_share(self, threshold: float) -> float | None:
        """Share of the unit ball's cells that are opaque beyond a threshold now, by the density in their middle.

        None without density.
        """
        width = 2.0 / BALL_CELLS
        axis = (torch.arange(BALL_CELLS, device=self.device) + 0.5) * width - 1.0
        points = torch.cartesian_prod(axis, axis, axis)
        found = self.density_and_color(points[points.norm(dim=-1) < 1.0])
        return None if found is None else (1 - torch.exp(-found[0] * width) > threshold).float().mean().item()

    # Moving it.

    @abstractmethod
    def move(
        self, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, " 3"] | None = None, scale: float = 1.0
    ) -> None:
        """Turn it about the origin, then shift it, then scale it from the origin; in place, without gradients.

        It looks then as before from cameras that were moved alike. Opacity along a ray through the whole of it stays
        what it was. Values that an optimiser works on need not change: a transform in buffers is as good.
        """

    def turn_by(self, angle_deg: float) -> None:
        """Turn it about z, counter-clockwise seen from above."""
        self.move(turn_about_z(angle_deg).to(self.device))

    # Learning. A stage calls `begin_stage` once; then, for each step, `before_step`, `render_views` for guidance,
    # `render_pixels` for each set of target views, `shape_losses`; after the optimiser has stepped, `after_step`.

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters that learn, each in one group; every group gets gradients from renders."""

    def go_on(self, settings: Section) -> None:
        """Learn by another stage's settings from now on; what of them says how a fresh asset is made, stays as it is.

        Here: there are none by which it learns.
        """
        return

    def begin_stage(self, render: RenderConfig, fresh: bool) -> None:
        """Take a stage's settings before its first step, also when it is resumed.

        Args:
            render: how the stage renders.
            fresh: whether it was made by `fresh` for this stage.

        Raises:
            ConfigError: it cannot be rendered as the stage asks for.
        """
        if render.space == "latent":
            raise ConfigError(
                f"render.space: latent is for a field, and this is a {self.kind}. Set render.space to rgb."
            )

    def take_latents(self, colors: LatentColors) -> None:
        """Learn how the latents look that it holds; called on a fresh asset of a stage that renders latents.

        Raises:
            ConfigError: it holds none.
        """
        raise ConfigError(
            f"render.space: latent is for a field, and this stage makes {self.kind}. Set render.space to rgb, or "
            "representation to field."
        )

    def before_step(self, position: Position, generator: torch.Generator) -> None:
        """Get ready for a step: refresh what speeds rendering up, switch on detail; generator on the CPU."""
        return

    def after_step(self, position: Position, optimizer: torch.optim.Optimizer) -> bool:
        """Look at what a step has done, before the gradients are cleared: densify, prune, reset.

        Args:
            position: as `before_step` got it.
            optimizer: Adam over `parameter_groups`, whose groups carry the `name` of each. Whoever replaces a parameter
                replaces it in its group, and its entry in `optimizer.state`.

        Returns:
            Whether parameters were replaced, which a running average has to begin anew for.
        """
        return False

    def level_gradients(self) -> list[Tensor]:
        """Gradients of its levels of detail, the coarsest first, to be changed in place; none for a kind without."""
        return []

    def refresh(self, generator: torch.Generator) -> None:
        """Bring what speeds rendering up to date, after a move and before it is handed on; generator on the CPU."""
        return

    @abstractmethod
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
        """Square images for guidance, all at once, differentiable in all parameters that are seen.

        Args:
            cameras: n, on any device, as a rule on the CPU.
            size: pixels per side.
            background: (n, 3) plain colour of each view, on any device; None for its own (white where it has none).
            shading: how albedo becomes colour, with n lights on any device; see `Shading.shade`.
            generator: of jitter, on its device; without it the result is deterministic.
            regularizers: which of the kind's own losses of these views are wanted, and what they weigh; None for none.
                Sparsity and entropy of the opacity are the caller's.
            with_normals: return normals as well, differentiable.
        """

    @abstractmethod
    def render_pixels(
        self, pixels: ViewPixels, generator: torch.Generator | None = None, ready: torch.cuda.Event | None = None
    ) -> PixelRendering:
        """Pixels of target views, without light, differentiable in the parameters and in the cameras.

        Args:
            pixels: on its device.
            generator: as in `render_views`.
            ready: moment on the main CUDA stream at which `pixels` were complete, for work on other streams.
        """

    def shape_losses(self, regularizers: RegularizerConfig, generator: torch.Generator) -> Losses:
        """The kind's own regularisers of the shape itself, once per step; generator on the CPU."""
        return {}

    def figures(self) -> dict[str, float]:
        """What a stage logs of it now and then; for the log of a training."""
        return {}
