"""3D Gaussians."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dreambooth3d.config.base import Count, Positive, Section, Share

Rasterizer = Literal["auto", "gsplat", "dense"]
_Length = Annotated[float, Field(gt=0)]
_Factor = Annotated[float, Field(gt=0)]


class GaussiansConfig(Section):
    """3D Gaussians."""

    learning: ClassVar[frozenset[str]] = frozenset(
        {
            "implementation", "count", "max_count", "position_rate", "scale_rate", "rotation_rate", "opacity_rate",
            "color_rate", "densify_every", "densify_share", "densify_threshold", "split_radius", "prune_opacity",
            "prune_radius", "opacity_reset_every",
        }
    )  # fmt: skip
    """What also holds in a stage that goes on from Gaussians (of these, count means nothing there); the rest says what
    fresh ones are."""
    implementation: Rasterizer = "auto"
    """What rasterises: gsplat on CUDA, or PyTorch alone (dense) anywhere; auto is gsplat where it can be used."""
    count: Positive = 2000
    """Gaussians at the start."""
    max_count: Positive = 5000
    """Gaussians beyond which none are added."""
    initial_radius: _Length = 0.5
    """Radius in world units of the ball that fresh Gaussians fill."""
    initial_opacity: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Opacity of each fresh Gaussian in its middle."""
    min_radius: _Length = 0.01
    """Standard deviation in world units below which no axis of a Gaussian gets: a third of a pixel of 64, which could
    not tell what is thinner."""
    position_rate: _Factor = 0.5
    """Factor on the stage's learning rate: of positions."""
    scale_rate: _Factor = 3.0
    """Likewise, of the logarithms of the axes' lengths."""
    rotation_rate: _Factor = 3.0
    """Likewise, of quaternions."""
    opacity_rate: _Factor = 10.0
    """Likewise, of the opacities' logits."""
    color_rate: _Factor = 10.0
    """Likewise, of the colours' logits."""
    densify_every: Count = 25
    """Steps between times at which Gaussians are added and removed; 0 never does."""
    densify_share: tuple[Share, Share] = (0.05, 0.7)
    """Part of the stage in which that happens."""
    densify_threshold: Annotated[float, Field(ge=0)] = 1.5
    """Mean view-space gradient from which a Gaussian is cloned or split, in units of the mean of all Gaussians, since
    the losses of the stages are of any size."""
    split_radius: _Length = 0.03
    """Standard deviation in world units of a Gaussian's longest axis from which it is split rather than cloned."""
    prune_opacity: Share = 0.02
    """Opacity below which a Gaussian is removed."""
    prune_radius: _Length = 0.3
    """Standard deviation in world units of a Gaussian's longest axis beyond which it is removed."""
    opacity_reset_every: Count = 0
    """Steps between times at which all opacities are lowered to twice prune_opacity, while Gaussians are added; those
    that no view asks for go then. 0 never does."""
    fit_steps: Count = 100
    """Steps in which Gaussians that are made of another kind of asset are fitted to its renders; 0 is none."""
    background: Literal["learned", "white"] = "learned"
    """What lies behind the Gaussians while they learn: one learned colour, or white."""

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.max_count < self.count:
            raise ValueError(f"max_count={self.max_count} is below count={self.count}: raise max_count or lower count")
        return self
