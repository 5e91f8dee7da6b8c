"""Step: the subject of a prompt, of which there are no photos."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import SubjectPhotos
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.read_prompt))
def read_prompt(prompt: str, class_noun: str) -> Annotated[SubjectPhotos, "photos"]:
    """The subject that a prompt describes: a photo set without photos."""
    return run_stage(stages.read_prompt, "cpu", prompt, class_noun)
