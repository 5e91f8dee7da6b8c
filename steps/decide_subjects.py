"""Step: which subjects need training. Never cached."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step

from dreambooth3d.config import TrainingConfig
from dreambooth3d.fleet import PromotionConfig


@step(enable_cache=False)
def decide_subjects(
    subjects: list[dict[str, Any]], training: TrainingConfig, gates: PromotionConfig
) -> Annotated[list[dict[str, Any]], "decisions"]:
    """Compare what each training would be made of now with what production was made of."""
    # The pipelines import the steps.
    from pipelines.dataset import FoundSubject
    from pipelines.retraining import decide_subject

    return [decide_subject(FoundSubject(**found), training, gates).row() for found in subjects]
