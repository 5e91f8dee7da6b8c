"""What score distillation asks of one step's views, whole or shared among the processes of a team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.config.distillation import DistillConfig, RegularizerConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.nerf.training import losses
from dreambooth3d.nerf.training.normal_maps import camera_normals, normal_images, normal_latents
from dreambooth3d.nerf.training.schedules import weights_at
from dreambooth3d.parallel import Team
from dreambooth3d.representation.interface import Losses, Representation, TrainingViews
from dreambooth3d.representation.shading import Shading


@dataclass(frozen=True)
class ViewBatch:
    """The views of one step, as drawn.

    Attributes:
        cameras: n cameras.
        background: (n, 3) plain colours, or None for the asset's own background.
        shading: with n lights.
        progress: position in the stage, in [0, 1].
        ramp: factor on sparsity, opacity and, before it rises, emptiness.
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
        background = None if self.background is None else function(self.background)
        return ViewBatch(self.cameras.map(function), background, self.shading.map(function), self.progress, self.ramp)


def view_loss(
    asset: Representation,
    batch: ViewBatch,
    guidance: Guidance,
    config: DistillConfig,
    jitter: torch.Generator | None,
    team: Team,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The loss of this process' share of the views: guidance, and the regularisers of what was rendered.

    Args:
        batch: all views of the step, on the CPU.
        jitter: of the rendering, on the asset's device; None renders deterministically.

    Returns:
        The loss weighted by the share, so that the sum over the team is that of the whole batch; and, in rank 0, the
        whole batch's `loss` with its parts, detached.
    """
    part, weights = team.part(len(batch)), weights_at(config.regularizers, batch.progress)
    mine = batch if team.size == 1 else batch.map(lambda values: values[part])
    views = asset.render_views(
        mine.cameras,
        config.render.size,
        background=mine.background,
        shading=mine.shading,
        generator=jitter,
        regularizers=weights,
        with_normals=config.guide_on == "normals",
    )
    if team.size > 1:
        guidance.part = (part.start, len(batch))
    guided = _judged(views, mine, guidance, config)
    figures: dict[str, Tensor | float] = {f"guidance/{name}": value for name, value in guided.metrics.items()}
    figures["guidance_loss"] = guided.loss.detach()
    figures["opacity"] = views.opacity.detach().mean()
    loss = guided.loss
    parts = _regularizers(weights, batch, views)
    for name, (weight, value) in parts.items():
        figures[name] = value.detach()
        loss = loss + weight * value
    share = len(mine) / len(batch)
    weighted = {name: value * share for name, value in figures.items()}
    weighted |= {"loss": share * loss.detach(), **views.figures}
    return share * loss, team.sum_figures(weighted)


def _judged(views: TrainingViews, batch: ViewBatch, guidance: Guidance, config: DistillConfig) -> GuidanceLoss:
    """What guidance says of that which it is shown of the views."""
    if config.render.space == "latent":
        shape = guidance.latent_shape
        if shape is None:
            raise ConfigError(
                "render.space: latent needs guidance by a latent diffusion model. Set render.space to rgb."
            )
        return guidance.of_latents(_resized(views.color, shape[-1]), batch.cameras, batch.progress)
    if config.guide_on != "normals":
        return guidance(_resized(views.color, guidance.image_size), batch.cameras, batch.progress)
    assert views.normals is not None
    normals = camera_normals(views.normals, batch.cameras)
    if batch.progress < config.latents_until:
        latents = normal_latents(normals, views.opacity, guidance.latent_shape)
        return guidance.of_latents(latents, batch.cameras, batch.progress)
    images = normal_images(normals, views.opacity, batch.background)
    return guidance(_resized(images, guidance.image_size), batch.cameras, batch.progress)


def _resized(images: Tensor, size: int | None) -> Tensor:
    """Images or latents at the size that guidance wants; None takes any."""
    if size is None or size == images.shape[-1]:
        return images
    return torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def _regularizers(weights: RegularizerConfig, batch: ViewBatch, views: TrainingViews) -> Losses:
    """The regularisers in force; those of the asset's kind come with its views."""
    ramp, haze = batch.ramp, views.haze
    parts: Losses = {}
    if haze is not None and weights.sparsity > 0:
        parts["sparsity"] = (ramp * weights.sparsity, losses.sparsity(haze))
    if haze is not None and weights.opacity > 0:
        parts["opacity_entropy"] = (ramp * weights.opacity, losses.opacity_entropy(haze))
    parts |= views.losses
    if "emptiness" in parts:
        weight, value = parts["emptiness"]
        rise = weights.emptiness_rise if batch.progress >= weights.emptiness_rise_at else ramp
        parts["emptiness"] = (rise * weight, value)
    if weights.center_depth > 0:
        parts["center_depth"] = (weights.center_depth, losses.center_depth(views.opacity * views.depth))
    return parts
