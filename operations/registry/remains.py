"""What a run's row still says of it when its results are gone: figures, times, and what it was for; no pictures."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from dreambooth3d.errors import gist
from dreambooth3d.run_report.content import RunContent, StepTaken
from operations.records.keys import CACHED, SECONDS, STEPS, asset_figures, current
from operations.records.patience import briefly
from operations.records.reading import Reader
from operations.records.row import COMMIT_TAG, PRESET_TAG, SUBJECT_TAG, Row, row_name
from operations.records.status import TAG

logger = logging.getLogger(__name__)


def of_row(row: Row) -> RunContent:
    """What is told of a run that ZenML has deleted."""
    metrics, tags = current(row.data.metrics), row.data.tags
    steps = tuple(_took(StepTaken(name), metrics) for name in _steps(metrics))
    started, ended = row.info.start_time, row.info.end_time
    return RunContent(
        run=row_name(row),
        subject=tags.get(SUBJECT_TAG, ""),
        status=tags.get(TAG, ""),
        preset=tags.get(PRESET_TAG, ""),
        started=datetime.fromtimestamp(started / 1000, UTC),
        seconds=(ended - started) / 1000 if ended else None,
        commit=tags.get(COMMIT_TAG, ""),
        data_hash=tags.get("data.hash", ""),
        metrics=asset_figures(metrics),
        steps=steps,
        gone=tuple(step.name for step in steps),
    )


def completed(content: RunContent, known: Collection[str]) -> RunContent:
    """What is told of a run, with what only its row still knows; as it is where the row does not answer at once.

    Args:
        content: of the run, from what its steps have stored.
        known: the steps whose records are there.
    """
    try:
        with briefly():
            metrics = current(Reader.of_active_state().find(content.run).data.metrics)
    except Exception as error:  # a tracker raises errors of its own
        logger.info("%s: its row was not asked (%s).", content.run, gist(error))
        return content
    gone = tuple(name for name in _steps(metrics) if name not in known)
    if not gone:
        return content
    steps = [_took(step, metrics) if step.name in gone else step for step in content.steps]
    return replace(content, metrics=asset_figures(metrics) | dict(content.metrics), steps=tuple(steps), gone=gone)


def _steps(metrics: Mapping[str, float]) -> list[str]:
    """The steps that have reported to a row, in the order in which its figures came."""
    return [key.removeprefix(SECONDS) for key in metrics if key.startswith(SECONDS)]


def _took(step: StepTaken, metrics: Mapping[str, float]) -> StepTaken:
    """A step with what a row says of its time and memory."""
    return replace(
        step,
        seconds=metrics.get(f"{SECONDS}{step.name}"),
        cached=bool(metrics.get(f"{CACHED}{step.name}", 0.0)),
        memory_mib=metrics.get(f"{STEPS}/process_memory_mib/{step.name}"),
    )
