"""The portfolio: many subjects in one run, a child run and so one MLflow row for each, and a row with the table."""

from __future__ import annotations

from zenml.logger import get_logger

import steps
from dreambooth3d.config.fleet import PARALLEL, PortfolioConfig, Subjects
from dreambooth3d.config.photos import DatasetConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.photos.subjects import FoundSubject
from operations.launch.children import train_children
from operations.launch.strict import require_no_failure, strict_dynamic_pipeline
from operations.registry.decisions import Verdict
from pipelines.subject import TRAINING_STEPS, train_subject

logger = get_logger(__name__)


@strict_dynamic_pipeline(
    experiment="dreambooth3d-portfolio",
    config=PortfolioConfig,
    own_steps=(steps.resolve_dataset, steps.summarize),
    training_steps=TRAINING_STEPS,
)
def portfolio(
    dataset: DatasetConfig = DatasetConfig(),
    subjects: Subjects = "all",
    training: TrainingConfig = TrainingConfig(),
    parallel: int = PARALLEL,
) -> None:
    """Train every subject; a step whose inputs have not changed comes from the cache, subject by subject."""
    found = [
        FoundSubject(**row) for row in steps.resolve_dataset(dataset, [] if subjects == "all" else [*subjects]).load()
    ]
    verdicts = {row.subject: Verdict(row.subject, "failed", row.error) for row in found}
    hashes = {row.subject: row.data for row in found}
    usable = [row for row in found if not row.error]
    configs = {row.subject: training.model_copy(update={"photos": row.photos(training.photos)}) for row in usable}
    for name, child in train_children(train_subject, configs, parallel):
        action, reason = ("failed", child.error) if child.error else ("trained", "asked for")
        verdicts[name] = Verdict(name, action, reason, hashes[name], child.run)
    for verdict in verdicts.values():
        logger.info("%s: %s: %s", verdict.subject, verdict.action, verdict.reason)
    steps.summarize([verdict.row() for verdict in verdicts.values()])
    require_no_failure(verdicts.values())
