"""From where each photo was taken, as far as the photos, a scorer and the bundled network tell."""

from __future__ import annotations

import torch

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.config.photos import PhotoModels
from dreambooth3d.evaluation.clip import ClipScorer, pinned
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.photos.cameras.locate import CPU, locate_photos
from dreambooth3d.photos.cameras.prior import view_prior


def with_viewpoints(
    photos: SubjectPhotos, selector: ScorerRef, models: PhotoModels, device: torch.device = CPU
) -> SubjectPhotos:
    """The photos with each one's view word and camera in `facts`, and in the findings which cameras cannot be told.

    Args:
        photos: with masks.
        selector: names their views.
        models: `views` tells directions before any search.
        device: on which cameras are searched.

    Raises:
        BaseModelError: the scorer is missing or damaged.
        ConfigError: the network is not here, or another than the one pinned.
    """
    named = name_photo_views(photos, ClipScorer.load(pinned(selector)))
    return locate_photos(named, view_prior(named, models.views), device)
