"""Retraining: what has changed since production is trained again, and promoted if it passes the gates.

The pipeline is dynamic: its body runs at each tick, in the orchestrator, and finds the dataset as it is then.
"""

from __future__ import annotations

from zenml.logger import get_logger

import steps
from dreambooth3d.config.fleet import PARALLEL, PromotionConfig, RetrainConfig, Subjects
from dreambooth3d.config.photos import DatasetConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.photos.subjects import FoundSubject
from operations.launch.children import train_children
from operations.launch.retraining import judge_child
from operations.launch.strict import require_no_failure, strict_dynamic_pipeline
from operations.registry.decisions import Verdict
from pipelines.subject import TRAINING_STEPS, train_subject

logger = get_logger(__name__)


@strict_dynamic_pipeline(
    experiment="dreambooth3d-retrain",
    config=RetrainConfig,
    own_steps=(steps.resolve_dataset, steps.decide_subjects, steps.summarize),
    training_steps=TRAINING_STEPS,
)
def retrain(
    dataset: DatasetConfig = DatasetConfig(),
    subjects: Subjects = "all",
    training: TrainingConfig = TrainingConfig(),
    gates: PromotionConfig = PromotionConfig(),
    parallel: int = PARALLEL,
) -> None:
    """Decide for each subject whether it needs training, train those, promote what passes, and say what was done."""
    found = steps.resolve_dataset(dataset, [] if subjects == "all" else [*subjects])
    decisions = [Verdict(**row) for row in steps.decide_subjects(found, training, gates).load()]
    photos = {row["subject"]: FoundSubject(**row).photos(training.photos) for row in found.load()}
    verdicts = {decision.subject: decision for decision in decisions}
    due = [decision.subject for decision in decisions if decision.action == "train"]
    configs = {name: training.model_copy(update={"photos": photos[name]}) for name in due}
    for name, child in train_children(train_subject, configs, parallel):
        verdicts[name] = judge_child(verdicts[name], child, gates)
    for verdict in verdicts.values():
        logger.info("%s: %s: %s", verdict.subject, verdict.action, verdict.reason)
    steps.summarize([verdict.row() for verdict in verdicts.values()])
    require_no_failure(verdicts.values())
