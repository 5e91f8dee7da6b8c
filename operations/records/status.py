"""How a run stands. Nothing else weighs what ZenML, MLflow and the run's own tag say of it, or reads that tag.

ZenML decides where it knows the run: it derives a run's status from its steps', and only it knows whether one goes on.
MLflow does not: a row ends with each step and is opened again by the next, and it says `FAILED` while a step that
failed is about to be tried again. Of a run that was deleted in ZenML, or that belongs to another server, the row alone
tells.

The tag `status` is what the last step has said of a run that got to its end. It tells a completed run from an
interrupted one, and a row that is whole from one that is between two steps; it never makes a failed run a good one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, get_args

from operations.records.row import Ending, Row

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

TAG = "status"
ENDS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
"""How MLflow calls the ends of runs."""
_NAMES_PER_CALL = 50

End = Literal["completed", "interrupted", "failed"]
Status = Literal["running", "completed", "interrupted", "failed"]


def status_of(run: Ending | None, row: str | None = None, tags: Mapping[str, object] | None = None) -> Status:
    """How a run stands.

    Args:
        run: its status in ZenML, None where ZenML does not know it.
        row: the status of its row in MLflow (RUNNING, SCHEDULED, FINISHED, FAILED, KILLED), None where there is none.
        tags: of its row, or what its model version says of itself where there is no row.
    """
    said = _said(tags or {})
    if run is None:
        return _without_zenml(row, said)
    if not run.is_finished:
        return "running"
    return said or "completed" if run.is_successful else "failed"


def status_of_row(run: Ending | None, row: Row) -> Status:
    """How the run of a row stands, by the row and by its status in ZenML."""
    return status_of(run, row.info.status, row.data.tags)


def tells_its_end(row: str, tags: Mapping[str, object]) -> bool:
    """Whether a row by itself tells how its run has ended: MLflow calls it finished between two steps as well."""
    return row in ("FAILED", "KILLED") or (row == "FINISHED" and _said(tags) is not None)


def pipeline_runs(names: Iterable[str], hydrate: bool = False) -> dict[str, PipelineRunResponse]:
    """Those of the named runs that ZenML knows, by name, at one request for fifty of them."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    wanted = list(dict.fromkeys(names))
    found: dict[str, PipelineRunResponse] = {}
    for start in range(0, len(wanted), _NAMES_PER_CALL):
        asked = f"oneof:{json.dumps(wanted[start : start + _NAMES_PER_CALL])}"
        runs = depaginate(Client().list_pipeline_runs, name=asked, size=_NAMES_PER_CALL, hydrate=hydrate)
        found |= {run.name: run for run in runs}
    return found


def _said(tags: Mapping[str, object]) -> End | None:
    """What the last step said; another value was set by hand, and says nothing."""
    return next((end for end in get_args(End) if tags.get(TAG) == end), None)


def _without_zenml(row: str | None, said: End | None) -> Status:
    if row in ("RUNNING", "SCHEDULED"):
        return "running"
    if row == "KILLED" and said == "interrupted":
        return "interrupted"
    return "failed" if row in ("FAILED", "KILLED") else said or "failed"
