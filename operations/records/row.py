"""What a row of MLflow and a pipeline run of ZenML say, whoever has read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

RUN_TAG = "zenml.pipeline_run"


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


def row_name(row: Row) -> str:
    """The pipeline run's name."""
    return str(row.data.tags.get(RUN_TAG) or row.info.run_name)
