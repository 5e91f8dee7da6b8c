"""Step: read and check the subject's photos."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.validate_photos))
def validate_photos(
    config: PhotosConfig, data_md5: str, selector: ScorerRef, models: PhotoModels
) -> Annotated[SubjectPhotos, "photos"]:
    """Read, check and mask the photos whose hash is `data_md5`; the selector names views, silhouettes tell cameras."""
    return run_stage(stages.validate_photos, "cpu", config, data_md5, selector, models)
