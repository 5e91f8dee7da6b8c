"""The retraining for orchestrators without dynamic pipelines, such as Airflow: the same, inside one step."""

from __future__ import annotations

import steps
from dreambooth3d.config.fleet import PARALLEL, PromotionConfig, StaticRetrainConfig, Subjects
from dreambooth3d.config.photos import DatasetConfig
from dreambooth3d.config.training import TrainingConfig
from operations.launch.strict import strict_fleet_pipeline


@strict_fleet_pipeline(experiment="dreambooth3d-retrain", config=StaticRetrainConfig)
def retrain_static(
    stack: str,
    dataset: DatasetConfig = DatasetConfig(),
    subjects: Subjects = "all",
    training: TrainingConfig = TrainingConfig(),
    gates: PromotionConfig = PromotionConfig(),
    parallel: int = PARALLEL,
) -> None:
    """Find the dataset's version at this tick, then decide, train and promote in one step on another stack."""
    found = steps.resolve_dataset(dataset, [] if subjects == "all" else [*subjects])
    sections = {"dataset": dataset, "training": training, "gates": gates}
    parameters = {name: section.model_dump(mode="json") for name, section in sections.items()}
    steps.retrain_apart(found, parameters | {"parallel": parallel}, stack)
