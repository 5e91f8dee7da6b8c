"""The fine-tuned models of finished runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dreambooth3d.artifacts import CheckpointSet, DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.config.generation import RUN_GUIDE
from dreambooth3d.environment import quiet
from dreambooth3d.errors import ConfigError, RunNotFoundError
from operations.records import rows

if TYPE_CHECKING:
    from zenml.models import ArtifactVersionResponse

CHOICES = {
    "partial": ("select_checkpoints", "partial"),
    "full": ("select_checkpoints", "full"),
    "multiview": ("finetune_multiview", "multiview"),
}
"""Step and output that hold each of a run's chosen checkpoints."""


def find_guide(guide: str) -> ArtifactVersionResponse:
    """The checkpoint that guides a generation, as its artifact, for a pipeline's step to take.

    Args:
        guide: `run:NAME`, or with one of `CHOICES` behind a slash; partial without.

    Raises:
        ConfigError: it is none of these.
        RunNotFoundError: there is no such run, or it has no such checkpoint.
    """
    run, slash, which = guide.removeprefix(RUN_GUIDE).partition("/")
    if not run or (slash and which not in CHOICES):
        raise ConfigError(
            f"generation.guide: {guide} names no checkpoint of a run. Write {RUN_GUIDE}NAME, with or without one of "
            f"{', '.join(f'/{choice}' for choice in CHOICES)} behind it."
        )
    quiet()
    return _output(rows.row_name(rows.find_row(run)), *CHOICES[which or "partial"])


def find_checkpoint(run: str, step: int | None, which: str) -> DreamBoothCheckpoint:
    """A checkpoint of a run: that of a fine-tuning step, or else a chosen one.

    Raises:
        RunNotFoundError: there is no such run, or it has no such checkpoint.
    """
    quiet()
    name = rows.row_name(rows.find_row(run))
    if step is None:
        return _output(name, *CHOICES[which]).load()
    checkpoints: CheckpointSet = _output(name, "finetune_dreambooth", "checkpoints").load()
    if step not in checkpoints.checkpoints:
        raise RunNotFoundError(
            f"{name}: there is no checkpoint of step {step}. Choose one of {', '.join(map(str, checkpoints.steps))}."
        )
    return checkpoints.checkpoints[step]


def find_photos(run: str) -> SubjectPhotos:
    """The photos that a run's checkpoints were trained on.

    Raises:
        RunNotFoundError: there is no such run, or it has no photos.
    """
    quiet()
    return _output(rows.row_name(rows.find_row(run)), "validate_photos", "photos").load()


def _output(run: str, step: str, output: str) -> ArtifactVersionResponse:
    """One artifact of a run; loaded, it has its weights as handles."""
    from zenml.client import Client

    try:
        version = Client().get_pipeline_run(run).steps[step].outputs[output][0]
    except (KeyError, IndexError):
        raise RunNotFoundError(
            f"{run}: this run has no output {output!r} of the step {step}. It may have been deleted, have stopped "
            "before that step, or have a recipe without it; `dreambooth3d runs show` tells."
        ) from None
    return version
