"""Configuration of runs over many subjects: the portfolio, and the retraining with its gates."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dreambooth3d.config.base import Filled, Positive, Section
from dreambooth3d.config.photos import DatasetConfig, FolderName
from dreambooth3d.config.training import TrainingConfig

PARALLEL = 4
Subjects = Literal["all"] | Annotated[tuple[FolderName, ...], Field(min_length=1)]


class BoundsConfig(Section):
    """Where a metric must lie; at least one of both."""

    min: float | None = None
    """Smallest value that passes."""
    max: float | None = None
    """Largest value that passes."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max, so that nothing could pass")
        return self


class RegressionConfig(Section):
    """How much worse than production's a metric may be."""

    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Loss that still passes, in the metric's own unit."""
    better: Literal["higher", "lower"] = "higher"
    """Which values of the metric are the better ones."""


class PromotionConfig(Section):
    """What a new version must fulfil to become production; tripped guards and interrupted runs never pass."""

    bounds: dict[str, BoundsConfig] = {}
    """By metric key of the MLflow row, such as evaluate/psnr_fg; a metric that is missing does not pass."""
    regression: dict[str, RegressionConfig] = {}
    """By metric key; compared where production has the metric. One that neither has does not pass."""

    @property
    def digest(self) -> str:
        """SHA-256 of the gates' values."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class _FleetConfig(Section):
    dataset: DatasetConfig = DatasetConfig()
    """Where the photo sets come from; it is looked up in each run."""
    subjects: Subjects = "all"
    """Names of photo sets, or all that the dataset holds at that time."""
    training: TrainingConfig = TrainingConfig()
    """The parameters of `pipelines.training.dreambooth3d`; photos.subject is filled in for each subject."""
    parallel: Positive = PARALLEL
    """Subjects that train at the same time, where the orchestrator gives each step a place of its own."""

    @model_validator(mode="after")
    def _names_no_photos_itself(self) -> Self:
        photos = self.training.photos
        for name in ("subject", "dir", "dataset", "class_noun", "description"):
            if getattr(photos, name) is not None:
                remedy = "use dataset" if name == "dataset" else "each subject's own subject.yaml or folder says it"
                raise ValueError(f"training.photos.{name} cannot be set for many subjects: {remedy}")
        if self.training.contexts:
            raise ValueError("training.contexts name one subject: they cannot be set for many")
        return self


class PortfolioConfig(_FleetConfig):
    """The parameters of `pipelines.portfolio.portfolio`."""


class RetrainConfig(_FleetConfig):
    """The parameters of `pipelines.retraining.retrain`."""

    gates: PromotionConfig = PromotionConfig()
    """What decides on promotion."""


class StaticRetrainConfig(RetrainConfig):
    """The parameters of `pipelines.retraining_static.retrain_static`."""

    stack: Filled
    """ZenML stack on which the retraining itself runs, inside the step: one with the local orchestrator, and with the
    artifact store and the tracker of all others."""


FleetConfig = RetrainConfig | PortfolioConfig | StaticRetrainConfig
