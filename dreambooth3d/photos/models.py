"""Which bundled and fetched networks look at a photo set."""

from __future__ import annotations

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.photos.cameras.prior import views_digest
from dreambooth3d.photos.masks.choose import mask_models


def photo_models(config: PhotosConfig) -> PhotoModels:
    """All networks that take part, by the digests of their weights; found anew by every run.

    Raises:
        ConfigError: the one that is asked for is not installed or not here.
    """
    return mask_models(config).model_copy(update={"views": views_digest()})
