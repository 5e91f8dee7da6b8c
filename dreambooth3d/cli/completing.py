"""`dreambooth3d runs complete`: rows in MLflow that lack what their runs have stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zenml.models import PipelineRunResponse, StepRunResponse

from dreambooth3d.errors import ArtifactError, ConfigError, RunNotFoundError
from operations.launch.checking import parse_parameters
from operations.records import rows
from operations.records.patience import TrackerAwayError, patiently
from operations.records.publishing import PUBLISH, SUMMARIZE
from operations.records.status import status_of
from operations.registry.publication import Published, complete, is_incomplete
from operations.registry.retention import product_runs


def complete_runs(say: Callable[[str], None], name: str | None) -> int:
    """Complete the rows of one run or of all, from what their steps have stored; nothing is computed.

    Args:
        say: takes one line per run.
        name: of a run, or its beginning, or `latest`; None for all.

    Returns:
        How many rows were completed.

    Raises:
        RunNotFoundError: there is no such run, or more than one.
        ConfigError: the run has not ended, or the tracker does not answer.
    """
    runs = product_runs()
    chosen = runs if name is None else [_find(runs, name)]
    if name is not None and status_of(chosen[0].status) == "running":
        raise ConfigError(
            f"{chosen[0].name}: this run has not ended, and completes its row itself. If its process died, "
            "`dreambooth3d runs clean` marks it."
        )
    completed = left = 0
    try:
        known = {rows.row_name(row): row for row in patiently(lambda: rows.list_rows(limit=None), "runs complete")}
        for run in [run for run in chosen if status_of(run.status) != "running"]:
            try:
                completed += _complete(run, is_incomplete(run, known.get(run.name)), say, asked=name is not None)
            except ArtifactError as error:
                if name is not None:
                    raise
                left += 1
                say(f"{run.name}: left as it is. {error}")
    except TrackerAwayError as error:
        raise ConfigError(
            f"MLflow does not answer ({error}). Give the command again once it does; what is stored stays stored."
        ) from None
    if name is None:
        told = [f"{_rows(completed)} completed"] if completed else []
        told += [f"{_rows(left)} cannot be completed: what they lack is gone"] if left else []
        say(f"{'; '.join(told) or 'Every row is complete'}.")
    return completed


def _rows(count: int) -> str:
    return f"{count} {'row' if count == 1 else 'rows'}"


def _find(runs: Sequence[PipelineRunResponse], name: str) -> PipelineRunResponse:
    """One of the runs, which are sorted from the newest to the oldest; ZenML is asked, as there may be no row."""
    if name == "latest" and runs:
        return runs[0]
    matches = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunNotFoundError(f"{name}: {len(matches)} runs answer to this. Give more of the name.")
    newest = ", ".join(run.name for run in runs[:3]) or "none yet: start one with `dreambooth3d train`"
    raise RunNotFoundError(f"{name}: there is no such run. The newest runs are {newest}.")


def _complete(run: PipelineRunResponse, lacks: bool, say: Callable[[str], None], asked: bool) -> int:
    if not lacks:
        if asked:
            say(f"{run.name}: its row is complete.")
        return 0
    ended_well = status_of(run.status) != "failed"
    publish, summarize = run.steps.get(PUBLISH), run.steps.get(SUMMARIZE)
    made = _published(publish) if publish is not None and ended_well else None
    verdicts: Sequence[Mapping[str, Any]] | None = None
    if summarize is not None:
        verdicts = _value(summarize, "verdicts")
    complete(run, made, verdicts)
    what = "its row is completed, and its version registered" if made else "its row has now what its steps have stored"
    say(f"{run.name}: {what}.")
    return 1


def _published(step: StepRunResponse) -> Published:
    """What a run's last step took, from the store."""
    values = {name: _value(step, name) for name in ("report", "bundle", "asset", "photos", "config", "identity")}
    if not hasattr(values["config"], "model_dump"):
        values["config"] = parse_parameters(values["config"])
    return Published(**values)


def _value(step: StepRunResponse, name: str) -> Any:
    """An input of a step: one that was made by another, or a parameter."""
    found = step.inputs.get(name)
    return found[0].load() if found else step.config.parameters[name]
