"""Step: renders of the coarse field, turned into views of the subject (stage 2)."""

from __future__ import annotations

from typing import Annotated

import torch
from zenml import step

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.cameras import spread_cameras
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.diffusion.sampling.img2img import RenderedViews, pseudo_views
from dreambooth3d.nerf.rendering.volume import render_field
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("diffusion", "nerf"))
def generate_pseudo_views(
    coarse: RadianceField,
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    config: PseudoViewsConfig,
    seed: int,
    device: str,
) -> Annotated[PseudoViews, "pseudo_views"]:
    """Render evenly spread views, and redo part of the noise schedule with the full checkpoint."""
    with step_session("generate_pseudo_views", device, coarse, checkpoint, photos, config, seed) as session:
        runtime, cameras = session.runtime, spread_cameras(config.count, config.elevations_deg)
        size, samples = config.render.size, config.render.samples_per_ray
        renders = render_field(
            coarse,
            cameras,
            size=size,
            samples_per_ray=samples,
            background=torch.tensor(config.background),
            device=runtime.device,
        )
        views = RenderedViews(renders.color, renders.opacity, cameras)
        return session.finish(pseudo_views(views, checkpoint, photos, config, seed, runtime))
