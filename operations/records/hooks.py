"""Who is told when a run ends: a web address where one is set, else a file.

ZenML runs these hooks in the process of the step, or of a dynamic pipeline's run. A notification that cannot be
delivered never fails a run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse, StepRunResponse

from dreambooth3d import environment
from dreambooth3d.errors import gist
from operations.records.row import VIEW
from operations.records.status import Status, status_of

logger = logging.getLogger(__name__)

WEBHOOK = "DREAMBOOTH3D_WEBHOOK"
FILE = "notifications.jsonl"
TIMEOUT_S = 10.0
incomplete: dict[str, str] = {}
"""Runs of this process whose rows the tracker did not take, by name, with what is to be said of them."""
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")


def on_failure(exception: BaseException) -> None:
    """Tell that the run failed, with the step and the first line of its error."""
    run, step = _context()
    error = gist(exception) if isinstance(exception, Exception) else type(exception).__name__
    values = {"step": step.name} if step is not None else {}
    _say_in_row(run, step.name if step is not None else "the run", without_secrets(error))
    notify({**describe(run), "status": "failed", **values, "error": without_secrets(error)})


def _say_in_row(run: PipelineRunResponse, step: str, error: str) -> None:
    """Let the row's description say what went wrong, if the tracker takes it."""
    from operations.records import note, rows
    from operations.records.patience import briefly

    try:
        with briefly():
            if (found := _find_row(run)) is not None:
                note.write(rows.client(), found[2], note.of_failure(step, error))
    except Exception as problem:
        logger.debug("The row of run %s was not described (%s).", run.name, type(problem).__name__)


def on_success() -> None:
    """Tell that the run ended well, once, from its last step: ZenML calls this for each step of a static pipeline."""
    run, step = _context()
    if step is None or _is_last(run, step):
        notify({**describe(run), "status": _status(run), "error": incomplete.get(run.name)})


def _context() -> tuple[PipelineRunResponse, StepRunResponse | None]:
    """The present run, and its step where the hook belongs to one."""
    from zenml.execution.pipeline.dynamic.run_context import DynamicPipelineRunContext
    from zenml.steps.step_context import StepContext

    if (step := StepContext.get()) is not None:
        return step.pipeline_run, step.step_run
    if (dynamic := DynamicPipelineRunContext.get()) is not None:
        return dynamic.run, None
    raise RuntimeError("A hook was called outside a run.")


def _is_last(run: PipelineRunResponse, step: StepRunResponse) -> bool:
    """Whether nothing of a static pipeline comes after a step; False in a dynamic one, whose run has its own hook."""
    from zenml.client import Client

    if run.snapshot is None or run.snapshot.is_dynamic:
        return False
    # ZenML's context knows the run as it was when the step began.
    done = {name for name, found in Client().get_pipeline_run(run.id).steps.items() if found.status.is_successful}
    return set(run.snapshot.step_configurations) <= done | {step.name}


def describe(run: PipelineRunResponse) -> dict[str, object]:
    """What a notification says of any run: name, pipeline, subject, time, and its row in MLflow where known."""
    from dreambooth3d.naming import subject_of

    model = run.config.model.name if run.config.model else ""
    row = _row(run)
    return {
        "run": run.name,
        "pipeline": run.pipeline.name if run.pipeline else None,
        "subject": subject_of(model),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "mlflow_run_id": row[0] if row else None,
        "mlflow_url": row[1] if row else None,
    }


def _row(run: PipelineRunResponse) -> tuple[str, str | None] | None:
    """Id and page of a run's row in MLflow; a tracker that is not asked over HTTP has no page."""
    try:
        found = _find_row(run)
    except Exception as error:  # a tracker that is away must not keep the notification back
        logger.debug("No row was found for run %s (%s).", run.name, type(error).__name__)
        return None
    if found is None:
        return None
    uri, experiment, row, _ = found
    page = f"{without_secrets(uri).rstrip('/')}/#/experiments/{experiment}/runs/{row}?{VIEW}"
    return row, page if uri.startswith(("http://", "https://")) else None


def _find_row(run: PipelineRunResponse) -> tuple[str, str, str, Mapping[str, str]] | None:
    """Address of the tracker, experiment, id and tags of a run's row."""
    from operations.records.rows import row_of_run, tracking_uri

    row = row_of_run(run.name)
    return None if row is None else (tracking_uri(), row.info.experiment_id, row.info.run_id, row.data.tags)


def _status(run: PipelineRunResponse) -> Status:
    """How a run stands that ends well, while ZenML still takes it for running; its row's tags say the rest."""
    try:
        found = _find_row(run)
    except Exception:
        found = None
    return status_of(ExecutionStatus.COMPLETED, tags=found[3] if found else None)


def notify(message: Mapping[str, object]) -> bool:
    """Send a message to the address in `DREAMBOOTH3D_WEBHOOK`, or append it to `outputs/notifications.jsonl`.

    Returns:
        Whether it was delivered; otherwise a warning says what kept it, without the address, which may hold a token.
    """
    address = os.environ.get(WEBHOOK, "").strip()
    try:
        if address:
            _post(address, message)
        else:
            _append(environment.home() / "outputs" / FILE, message)
    except Exception as error:
        what = f"{type(error).__name__} {getattr(error, 'code', '')}".strip()
        logger.warning("The notification about run %s was not delivered (%s).", message.get("run"), what)
        return False
    return True


def _post(address: str, message: Mapping[str, object]) -> None:
    if urlsplit(address).scheme not in ("http", "https"):
        raise ValueError("not an HTTP address")
    body = json.dumps(message).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):
        pass


def _append(path: Path, message: Mapping[str, object]) -> None:
    """Append one line in one write, so that runs that end together do not mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(message, ensure_ascii=False) + "\n").encode())
    finally:
        os.close(handle)


def without_secrets(text: str) -> str:
    """A text without the webhook's address and without names and passwords in any address."""
    address = os.environ.get(WEBHOOK, "").strip()
    if address:
        text = text.replace(address, f"${WEBHOOK}")
    return _USER_INFO.sub("", text)
