"""Renders turned into views of the subject."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dreambooth3d.config.base import Positive, Section, Share
from dreambooth3d.config.rendering import RenderConfig


class PseudoViewsConfig(Section):
    """Stage 2: renders turned into views of the subject by img2img with the full checkpoint."""

    count: Positive = 20
    """Distinct cameras, evenly spread."""
    elevations_deg: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 15.0, 35.0)
    """Elevations that the cameras cycle through."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.4
    """img2img strength: the share of the noise schedule that is redone."""
    guidance_scale: float = 4.0
    """Classifier-free guidance scale."""
    inference_steps: Positive = 30
    """Denoising steps of the full schedule."""
    batch_size: Positive = 16
    """Views at once."""
    background: tuple[Share, Share, Share] = (0.7, 0.75, 0.8)
    """Colour behind the renders; not white, on which img2img loses the pale parts of a subject."""
    render: RenderConfig = RenderConfig()
