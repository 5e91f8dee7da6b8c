"""Reading rows, and what ZenML knows of their runs: from files on this machine, or by the clients of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dreambooth3d.naming import subject_of
from operations.records import rows
from operations.records.local_stores import LocalStores, local_stores
from operations.records.row import KnownRun, Row, row_name
from operations.records.status import pipeline_runs

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


@dataclass(frozen=True)
class Reader:
    """Reads the active state.

    Attributes:
        local: both stores as files, None where the clients are asked.
    """

    local: LocalStores | None = None

    @staticmethod
    def of_active_state() -> Reader:
        """The fastest that the active state allows."""
        return Reader(local_stores(rows.EXPERIMENT))

    def newest(self, limit: int) -> Sequence[Row]:
        """The newest rows, newest first."""
        return self.local.newest(limit) if self.local else rows.list_rows(limit)

    def find(self, name: str) -> Row:
        """A row by its run's name, its own, its id or the start of one of these; `latest` is the newest.

        Raises:
            RunNotFoundError: there is none, or more than one.
        """
        local = self.local
        if local is None:
            return rows.find_row(name)
        return rows.the_one(name, lambda: local.newest(3), lambda: local.named(name))

    def known_runs(self, found: Sequence[Row], times: bool = False) -> Mapping[str, KnownRun]:
        """What ZenML knows of the runs of rows, by their names.

        Args:
            found: the rows.
            times: also how long they took, which may cost a request for each.
        """
        return self.local.known_runs(found) if self.local else _by_client(found, times)


def _by_client(found: Sequence[Row], times: bool) -> dict[str, KnownRun]:
    """One request for fifty runs, and more only for those whose row does not tell all, or that may have died."""
    runs = pipeline_runs(map(row_name, found))
    named = {row_name(row): row.data.tags for row in found}
    lacking = {name for name, tags in named.items() if not {"subject", "preset"} <= tags.keys()}
    asked = [name for name, run in runs.items() if times or name in lacking or not run.status.is_finished]
    runs |= pipeline_runs(asked, hydrate=True)
    return {name: _known(run, name in asked) for name, run in runs.items()}


def _known(run: PipelineRunResponse, whole: bool) -> KnownRun:
    from operations.records.liveness import judge

    if not whole:
        return KnownRun(run.status)
    model = run.config.model.name if run.config.model else None
    gone = not run.status.is_finished and run.status != "paused" and judge(run).state == "dead"
    preset, subject = str(run.config.extra.get("preset", "")), subject_of(str(model or "")) or ""
    return KnownRun(run.status, rows.seconds_between(run), preset, subject, gone)
