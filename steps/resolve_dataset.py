"""Step: the dataset as it is now. Never cached."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step

from dreambooth3d.config.photos import DatasetConfig


@step(enable_cache=False)
def resolve_dataset(dataset: DatasetConfig, subjects: list[str]) -> Annotated[list[dict[str, Any]], "subjects"]:
    """Look up which subjects the dataset holds, all of them where none are named, with the hash of each."""
    from dreambooth3d.photos.subjects import find_subjects

    return [found.row() for found in find_subjects(dataset, tuple(subjects) or "all")]
