"""A subject of which there is a prompt and no photo."""

from __future__ import annotations

import hashlib
import re

import pandas as pd

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.naming import subject_named
from dreambooth3d.photos.dataset import UNTRACKED
from dreambooth3d.record import StepRecord


def prompted_subject(prompt: str, class_noun: str, record: StepRecord) -> SubjectPhotos:
    """The photo set without photos whose subject a prompt describes."""
    return SubjectPhotos(
        images=(),
        facts=pd.DataFrame(),
        findings=(),
        subject=prompted_name(prompt),
        identifier="",
        class_noun=class_noun,
        description=prompt,
        dataset_hash=prompt_hash(prompt),
        record=record,
        prompt=prompt,
    )


def prompted_name(prompt: str) -> str:
    """The subject's name, such as `a red snowman`."""
    return subject_named(re.sub(r"^a photo of ", "", prompt))


def prompt_hash(prompt: str) -> str:
    """What stands for the hash of a photo set."""
    return UNTRACKED + hashlib.sha256(prompt.encode()).hexdigest()
