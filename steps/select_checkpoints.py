"""Step: choose the partial and the full checkpoint by measurement."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import CheckpointChoice, CheckpointSet, DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.config.finetuning import SelectConfig
from dreambooth3d.config.models import ScorerRef
from operations.launch.sources import sources
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=sources(stages.select_checkpoints))
def select_checkpoints(
    checkpoints: CheckpointSet,
    photos: SubjectPhotos,
    selector: ScorerRef,
    config: SelectConfig,
    seed: int,
    device: str,
) -> tuple[
    Annotated[DreamBoothCheckpoint, "partial"],
    Annotated[DreamBoothCheckpoint, "full"],
    Annotated[CheckpointChoice, "choice"],
]:
    """Score every checkpoint with the selector; `partial` still obeys view words, `full` knows the subject best."""
    inputs = (checkpoints, photos, selector, config, seed)
    with step_session("select_checkpoints", device, *inputs) as session:
        if session.taken is not None:
            partial, full, choice = session.taken
            return partial, full, choice
        partial, full, choice = stages.select_checkpoints(session.runtime, *inputs)
        return partial, full, session.finish(choice)
