"""What score distillation asks of one step's views, whole or shared among the processes of a team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.config.distillation import DistillConfig, RegularizerConfig
from dreambooth3d.guidance import Guidance
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.sampling import Sampler
from dreambooth3d.nerf.rendering.shading import Shading
from dreambooth3d.nerf.rendering.volume import CameraRendering, render_cameras, sample_cameras
from dreambooth3d.nerf.training import losses
from dreambooth3d.nerf.training.aside import aside
from dreambooth3d.parallel import Team


@dataclass(frozen=True)
class ViewBatch:
    """The views of one step, as drawn.

    Attributes:
        cameras: n cameras.
        background: (n, 3) plain colours, or None for the field's own background.
        shading: with n lights.
        progress: position in the stage, in [0, 1].
        ramp: factor on sparsity and opacity.
    """

    cameras: Cameras
    background: Float[Tensor, "n 3"] | None
    shading: Shading
    progress: float
    ramp: float

    def __len__(self) -> int:
        return len(self.cameras)

    def map(self, function: Callable[[Tensor], Tensor]) -> ViewBatch:
        """The batch with `function` of each of its tensors, whose first dimension is the view."""
        light = self.shading.light
        shading = Shading(self.shading.mode, None if light is None else function(light), self.shading.ambient)
        background = None if self.background is None else function(self.background)
        return ViewBatch(self.cameras.map(function), background, shading, self.progress, self.ramp)


def view_loss(
    field: Field,
    batch: ViewBatch,
    guidance: Guidance,
    config: DistillConfig,
    sampler: Sampler,
    jitter: torch.Generator | None,
    team: Team,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The loss of this process' share of the views: guidance, and the regularisers of what was rendered.

    Args:
        batch: all views of the step, on the CPU.
        jitter: of samples along rays, on that device; None samples at fixed places.

    Returns:
        The loss weighted by the share, so that the sum over the team is that of the whole batch; and, in rank 0, the
        whole batch's `loss` with its parts, detached.
    """
    part, device = team.part(len(batch)), field.occupancy.density.device
    mine = batch if team.size == 1 else batch.map(lambda values: values[part])
    with aside(device, field.occupancy.changed) as handover:
        placed = mine.map(lambda values: values.to(device))
        sampled = sample_cameras(field, placed.cameras, config.render.size, sampler, jitter)
        handover.give(placed, sampled)
    rendering = render_cameras(
        field,
        placed.cameras,
        config.render.size,
        sampler=sampler,
        background=placed.background,
        generator=jitter,
        shading=placed.shading,
        with_normals=config.regularizers.orientation > 0,
        sampled=sampled,
    )
    if team.size > 1:
        guidance.part = (part.start, len(batch))
    guided = guidance(_at_size_of(guidance, rendering.images), mine.cameras, batch.progress)
    figures: dict[str, Tensor | float] = {f"guidance/{name}": value for name, value in guided.metrics.items()}
    figures["guidance_loss"] = guided.loss.detach()
    figures["opacity"] = rendering.rays.opacity.detach().mean()
    loss = guided.loss
    for name, (weight, value) in _regularizers(config.regularizers, batch.ramp, rendering, placed.cameras).items():
        figures[name] = value.detach()
        loss = loss + weight * value
    share = len(mine) / len(batch)
    weighted = {name: value * share for name, value in figures.items()}
    weighted |= {"loss": share * loss.detach(), "evaluated_samples": len(rendering.rays.weights)}
    return share * loss, team.sum_figures(weighted)


def _at_size_of(guidance: Guidance, images: Tensor) -> Tensor:
    """Images at the guidance's size."""
    size = guidance.image_size
    if size is None or size == images.shape[-1]:
        return images
    return torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def _regularizers(
    weights: RegularizerConfig, ramp: float, rendering: CameraRendering, cameras: Cameras
) -> dict[str, tuple[float, Tensor]]:
    """(weight, value) of each regulariser of rays in force; each is a mean over rays."""
    rays = rendering.rays
    parts = {}
    if weights.sparsity > 0:
        parts["sparsity"] = (ramp * weights.sparsity, losses.sparsity(rays.opacity))
    if weights.opacity > 0:
        parts["opacity_entropy"] = (ramp * weights.opacity, losses.opacity_entropy(rays.opacity))
    if weights.orientation > 0:
        size = rendering.images.shape[-1]
        directions = cameras.rays(size, size)[1].reshape(-1, 3)
        parts["orientation"] = (weights.orientation, losses.orientation(rays, directions))
    if weights.distortion > 0:
        parts["distortion"] = (weights.distortion, losses.distortion(rays.samples, rays.weights))
    return parts
