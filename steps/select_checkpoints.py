"""Step: choose the partial and the full checkpoint by measurement."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import CheckpointChoice, CheckpointSet, DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.config.finetuning import SelectConfig
from dreambooth3d.evaluation.clip import ClipScorer, pinned
from dreambooth3d.evaluation.selection import select
from operations.launch.sources import library
from steps._support import step_session


@step(experiment_tracker=True, cache_policy=library("diffusion", "evaluation"))
def select_checkpoints(
    checkpoints: CheckpointSet,
    photos: SubjectPhotos,
    selector: str,
    selector_digest: str,
    config: SelectConfig,
    seed: int,
    device: str,
) -> tuple[
    Annotated[DreamBoothCheckpoint, "partial"],
    Annotated[DreamBoothCheckpoint, "full"],
    Annotated[CheckpointChoice, "choice"],
]:
    """Score every checkpoint with the selector; `partial` still obeys view words, `full` knows the subject best."""
    inputs = (checkpoints, photos, selector_digest, config, seed)
    with step_session("select_checkpoints", device, *inputs) as session:
        session.runtime.log.params(selector=selector_digest)
        scorer = ClipScorer.load(pinned(selector, selector_digest), session.runtime.device)
        choice = session.finish(select(checkpoints, photos, scorer, config, seed, session.runtime))
    pairs = checkpoints.checkpoints
    return pairs[choice.partial_step], pairs[choice.full_step], choice
