"""Step: read and check the subject's photos."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.evaluation.clip import ClipScorer, pinned
from dreambooth3d.evaluation.views import name_photo_views
from dreambooth3d.photos.check import check_photos
from dreambooth3d.photos.silhouettes import locate_photos
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("photos", "evaluation"))
def validate_photos(
    config: PhotosConfig, data_md5: str, selector: str, selector_digest: str
) -> Annotated[SubjectPhotos, "photos"]:
    """Read and check the photo set whose hash is `data_md5`; the selector names each view, silhouettes tell cameras.

    Errors stop, warnings travel along.
    """
    with step_session("validate_photos", "cpu", config, data_md5, selector_digest) as session:
        photos = check_photos(config, data_md5, session.runtime)
        named = name_photo_views(photos, ClipScorer.load(pinned(selector, selector_digest)))
        located = locate_photos(named)
        session.runtime.log.params(views=", ".join(named.views))
        return session.finish(located)
