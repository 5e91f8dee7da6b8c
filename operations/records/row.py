"""What a row of MLflow and a pipeline run of ZenML say, whoever has read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dreambooth3d.naming import printable, subject_of

RUN_TAG, SUBJECT_TAG, PRESET_TAG, COMMIT_TAG = "zenml.pipeline_run", "subject", "preset", "git.commit"
NAME_TAG = "mlflow.runName"
VIEW = "workflowType=machine_learning"
"""Of MLflow's pages: of their two views that for language models, in which they open by themselves, has no rows."""
_SHOWN_ID = 4


class RowInfo(Protocol):
    """Of a row: who it is, and how MLflow takes it to stand; times in milliseconds since 1970."""

    @property
    def run_id(self) -> str: ...
    @property
    def run_name(self) -> str | None: ...
    @property
    def status(self) -> str: ...
    @property
    def start_time(self) -> int: ...
    @property
    def end_time(self) -> int | None: ...
    @property
    def artifact_uri(self) -> str | None: ...


class RowData(Protocol):
    """Of a row: its tags, the last value of each metric, and its parameters."""

    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def params(self) -> Mapping[str, str]: ...


class Row(Protocol):
    """A row, as MLflow's client gives it, or read otherwise."""

    @property
    def info(self) -> RowInfo: ...
    @property
    def data(self) -> RowData: ...


class Ending(Protocol):
    """A run's status, as ZenML's own enumeration has it."""

    @property
    def is_finished(self) -> bool: ...
    @property
    def is_successful(self) -> bool: ...


@dataclass(frozen=True)
class KnownRun:
    """What ZenML knows of a run.

    Attributes:
        status: as ZenML says it.
        seconds: from its start to its end, None where it has not ended.
        preset, subject: which it was started for, empty where it says none.
        gone: its process, or what ran it elsewhere, is known to have ended, though ZenML takes it for running.
    """

    status: Ending
    seconds: float | None = None
    preset: str = ""
    subject: str = ""
    gone: bool = False


@dataclass(frozen=True)
class Origin:
    """What a row says of its run from the first step on, so that one that fails says it as well.

    Attributes:
        run: name of the pipeline run.
        pipeline: name of the pipeline.
        preset, commit: as the run was compiled.
        subject: which it makes an asset of, empty for a run over many.
    """

    run: str
    pipeline: str = ""
    preset: str = "none"
    commit: str = "unknown"
    subject: str = ""

    @staticmethod
    def of(run: str, pipeline: str, extra: Mapping[str, object], model: str) -> Origin:
        """From what ZenML keeps of a run.

        Args:
            run, pipeline: names.
            extra: of the pipeline, which holds what was known when it was compiled.
            model: name of the registered model, empty for none.
        """
        preset, commit = str(extra.get("preset", "none")), str(extra.get("git_commit", "unknown"))
        return Origin(run, pipeline, preset, commit, subject_of(model) or "")

    def tags(self) -> dict[str, str]:
        """The row's tags."""
        known = {RUN_TAG: self.run, PRESET_TAG: self.preset, COMMIT_TAG: self.commit}
        return known | ({SUBJECT_TAG: self.subject} if self.subject else {})

    def shown(self, row: str) -> str:
        """What MLflow calls the row: subject, preset, and the first characters of its id, which also name it."""
        preset = "" if self.preset == "none" else self.preset
        parts = [printable(self.subject) or self.pipeline, preset, row[:_SHOWN_ID]]
        return " · ".join(part for part in parts if part)


def row_name(row: Row) -> str:
    """The pipeline run's name; rows of before have no other."""
    return str(row.data.tags.get(RUN_TAG) or row.info.run_name)


def answers_to(row: Row, name: str) -> bool:
    """Whether a row has this name: of its pipeline run, its own in MLflow, or its id."""
    return name in (row_name(row), row.info.run_name, row.info.run_id)


def begins_as(row: Row, name: str) -> bool:
    """Whether one of a row's names begins so."""
    return any(text.startswith(name) for text in (row_name(row), row.info.run_name or "", row.info.run_id))
