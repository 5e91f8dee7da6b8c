"""Step: the subject's ground truth, where it is known."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime, work_root
from operations.launch.sources import sources


@step(experiment_tracker=True, cache_policy=sources(stages.load_ground_truth))
def load_ground_truth(config: PhotosConfig, data_md5: str) -> Annotated[GroundTruth, "ground_truth"]:
    """Read the recipe from which true views are rendered; only `evaluate` may take it."""
    # It has no row and no state of its own.
    return stages.load_ground_truth(Runtime(StepLog("load_ground_truth"), work_root()), config, data_md5)
