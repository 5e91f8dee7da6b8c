"""Step: read and check the subject's photos."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config import PhotosConfig
from dreambooth3d.photos.check import check_photos
from steps._sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("photos"))
def validate_photos(config: PhotosConfig, data_md5: str) -> Annotated[SubjectPhotos, "photos"]:
    """Read, check and describe the photo set whose hash is `data_md5`; errors stop, warnings travel along."""
    with step_session("validate_photos", "cpu", config, data_md5) as session:
        return session.finish(check_photos(config, data_md5, session.context))
