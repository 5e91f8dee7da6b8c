"""Step: which subjects need training. Never cached."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step

from dreambooth3d.config.fleet import PromotionConfig
from dreambooth3d.config.training import TrainingConfig


@step(enable_cache=False)
def decide_subjects(
    subjects: list[dict[str, Any]], training: TrainingConfig, gates: PromotionConfig
) -> Annotated[list[dict[str, Any]], "decisions"]:
    """Compare what each training would be made of now with what production was made of."""
    from dreambooth3d.photos.subjects import FoundSubject
    from operations.launch.retraining import decide_subjects as decide

    return [verdict.row() for verdict in decide([FoundSubject(**found) for found in subjects], training, gates)]
