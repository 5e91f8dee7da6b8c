"""Pipelines of a second each, with the product's own artifact types and what a `StrictPipeline` notes of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

import torch
from zenml import pipeline, step
from zenml.client import Client
from zenml.model.model import Model
from zenml.models import PipelineRunResponse

import materializers  # noqa: F401  (registers them)
from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, DreamBoothCheckpoint
from dreambooth3d.runtime import work_root
from dreambooth3d.weights import save_weights
from operations.records import hooks
from operations.records.liveness import process_to_record
from operations.records.processes import PROCESS

BASE = BaseModelRef("models/toybox", "0" * 64)


@step
def train(seed: int) -> Annotated[CheckpointSet, "checkpoints"]:
    """Two checkpoints of one weight each."""
    pairs = {}
    for number in (1, 2):
        place = Path(work_root()) / f"toy_{seed}" / str(number)
        unet = save_weights({"weight": torch.full((2,), float(seed + number))}, place / "unet.safetensors")
        text = save_weights({"weight": torch.zeros(2)}, place / "text_encoder.safetensors")
        pairs[number] = DreamBoothCheckpoint(number, unet, text, BASE)
    return CheckpointSet(pairs, BASE)


@step
def pick(checkpoints: CheckpointSet) -> Annotated[DreamBoothCheckpoint, "full_checkpoint"]:
    """The last one, by reference."""
    return checkpoints.checkpoints[2]


@step(enable_cache=False, experiment_tracker=True)
def finish(checkpoint: DreamBoothCheckpoint, fail: bool = False) -> Annotated[float, "value"]:
    """The weight's value, or an error."""
    if fail:
        raise ValueError("the field became empty\nsecond line")
    return float(checkpoint.unet.load()["weight"][0])


@step(experiment_tracker=True)
def stay_alive() -> Annotated[int, "nothing"]:
    """Run until it is killed."""
    import time

    (Path(work_root()) / "alive").parent.mkdir(parents=True, exist_ok=True)
    (Path(work_root()) / "alive").touch()
    time.sleep(600)
    return 0


@pipeline(settings={"experiment_tracker": {"experiment_name": "dreambooth3d", "nested": False}})
def toy(seed: int = 1, fail: bool = False) -> None:
    """Train, pick, finish."""
    finish(pick(train(seed)), fail)


@pipeline(settings={"experiment_tracker": {"experiment_name": "dreambooth3d", "nested": False}})
def toy_from(version: UUID) -> None:
    """Finish with a checkpoint of another run."""
    finish(Client().get_artifact_version(version))


@pipeline(settings={"experiment_tracker": {"experiment_name": "dreambooth3d", "nested": False}})
def endless() -> None:
    """A run that only a kill ends."""
    stay_alive()


def configured(which, subject: str = "corgi"):
    """A pipeline with what `StrictPipeline` adds to its runs."""
    return which.with_options(
        extra={"preset": "tiny", PROCESS: process_to_record()},
        model=Model(name=f"dreambooth3d-{subject}"),
        on_failure=hooks.on_failure,
        on_success=hooks.on_success,
    )


def run_toy(subject: str = "corgi", **parameters: object) -> PipelineRunResponse:
    """Run the first pipeline."""
    return configured(toy, subject)(**parameters)
