"""Names under which a subject's assets stand in ZenML and in MLflow."""

from __future__ import annotations

_PREFIX = "dreambooth3d-"
# What a complete version says of itself in either registry.
LINEAGE = ("data.dvc_md5", "data.hash", "git.commit", "zenml.pipeline_run", "subject", "status")


def model_name(subject: str) -> str:
    """The name under which a subject's assets are registered."""
    return f"{_PREFIX}{subject}"


def subject_of(model: str) -> str | None:
    """The subject of a registered model, None for a model that is not of this product."""
    return model.removeprefix(_PREFIX) if model.startswith(_PREFIX) else None
