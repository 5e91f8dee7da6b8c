"""Step: the subject's ground truth, where it is known."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.photos.dataset import ground_truth
from operations.launch.sources import library


@step(experiment_tracker=True, cache_policy=library("photos"))
def load_ground_truth(config: PhotosConfig, data_md5: str) -> Annotated[GroundTruth, "ground_truth"]:
    """Read the recipe from which true views are rendered; only `evaluate` may take it."""
    return ground_truth(config)
