"""Which registered version of a subject's asset is production, and how that changes.

The truth is ZenML's model stage `production`. ZenML writes it in one database transaction, in which the version that
was production before becomes `archived` (`update_model_version(force=True)`), so that at every instant exactly one
version is production. MLflow's registered-model alias `production` follows. Each change of the stage is preceded by the
lock (`operations.registry.lock`) and by a record of the intent, which is metadata of the ZenML model
version that is to become production.

Where a change can be cut off, and what the next command then does (`production`, `candidate` and `history` as well as
`promote`, `rollback` and `repair`). In every case a reader of ZenML's stage, and one of MLflow's alias, gets one
complete version all the time.

| cut off after | stage | alias | the next command |
|---|---|---|---|
| the lock is taken | old | old | nothing is to mend; to change something, it waits for the lock to expire |
| half of the intent (ZenML writes a value, then its link) | old | old | the same: a value without a link is not seen |
| the intent | old | old | closes the intent as abandoned |
| the stage | new | old | moves the alias, closes the intent as done |
| the alias | new | new | closes the intent as done |
| the intent is closed, but the lock is kept | new | new | nothing is to mend; the lock expires |

The mending itself writes in the same order (stage, alias, records), so it may be cut off and repeated as well. It also
mends what came from outside this module: a stage that was set by hand gets its alias and a record `outside`; of two
versions in production (a holder that wrote after its lock had expired) the one that the latest record names stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from uuid import uuid4

from zenml.client import Client
from zenml.enums import ModelStages

from dreambooth3d.errors import LockError, PromotionError, RunNotFoundError
from dreambooth3d.naming import model_name
from operations.records import rows
from operations.records.status import Status
from operations.registry import lock as locks
from operations.registry.describing import tell_change
from operations.registry.lock import Lock, exclusive, who
from operations.registry.versions import (
    ALIAS,
    CHANGE_KEY,
    REFUSED,
    Change,
    Registered,
    Version,
    known_outcome,
    note,
    read,
    trail,
)

__all__ = [
    "Change", "Version", "candidate", "exclusive", "history", "in_production", "objection_to", "production", "promote",
    "refuse", "repair", "rollback", "settled",
]  # fmt: skip

_REASON_LENGTH = 2000
_FINISHED: tuple[Status, ...] = ("completed", "interrupted")
_logger = logging.getLogger(__name__)


def production(subject: str) -> Version | None:
    """The version that is in production, None where there is none; mends an interrupted change first.

    Raises:
        PromotionError: one is in production, but a registry lost a part of it.
    """
    registered = settled(subject)
    number = in_production(registered)
    return registered.version(number) if number else None


def in_production(registered: Registered) -> str:
    """Number of the version that is in production, empty where there is none.

    Raises:
        PromotionError: one is in production, but a registry lost a part of it.
    """
    number = registered.current
    if number and not registered.is_complete(number):
        subject = registered.subject
        raise PromotionError(
            f"{subject}: version {number} is in production, but its entry in MLflow is gone or not complete. Promote "
            f"another, or run `dreambooth3d production rollback {subject}`."
        )
    return number


def candidate(subject: str, run_name: str) -> Version:
    """The version that a finished run registered.

    Raises:
        RunNotFoundError: the run registered none for this subject.
        PromotionError: the run has not finished, or its version is not complete in both registries.
    """
    registered = settled(subject)
    numbers = [number for number in registered.versions if registered.run_of(number) == run_name]
    if not numbers:
        shown = ", ".join(islice(_good_runs(registered), 3)) or "none"
        raise RunNotFoundError(f"{run_name}: this run registered no version of {subject}. Runs that did: {shown}.")
    number = max(numbers, key=int)
    _require_finished(registered, number)
    _require_complete(registered, number)
    return registered.version(number)


def promote(version: Version, reason: str) -> None:
    """Make a version production; where it is already, nothing is written.

    Raises:
        PromotionError: the version is gone, or not complete in both registries.
        LockError: another process is changing this subject's production version.
    """
    with exclusive(version.subject) as lock:
        registered = _mended(version.subject, lock)
        if version.number not in registered.versions:
            raise PromotionError(
                f"{version.subject}: version {version.number} was deleted. Choose another run of "
                "`dreambooth3d runs list`."
            )
        _require_complete(registered, version.number)
        if registered.current != version.number:
            _switch(registered, lock, "promote", version.number, reason)


def rollback(subject: str, reason: str) -> Version:
    """Make that version production again that was before the present one; a second time, the one before that.

    Versions that were deleted since are passed over.

    Raises:
        RunNotFoundError: no version of this subject is registered.
        PromotionError: no version was in production before.
        LockError: another process is changing this subject's production version.
    """
    with exclusive(subject) as lock:
        registered = _mended(subject, lock)
        _require_known(registered)
        earlier = [
            number
            for number in trail(registered.changes)
            if number and number != registered.current and registered.is_complete(number)
        ]
        if not earlier:
            raise PromotionError(
                f"{subject}: no other version was in production before, so there is none to go back to. Promote one "
                "with `dreambooth3d production promote RUN`."
            )
        _switch(registered, lock, "rollback", earlier[-1], reason)
        return registered.version(earlier[-1])


def refuse(version: Version, reason: str, production: str, gates: str) -> None:
    """Note with a version why it was kept out.

    Args:
        version: complete in both registries.
        reason: in words.
        production: number of the version that it was compared with, empty for none.
        gates: their digest.
    """
    values = {"reason": reason[:_REASON_LENGTH], "production": production, "gates": gates}
    _write(read(version.subject), version.number, REFUSED, values)


def objection_to(subject: str, identity: Mapping[str, str], gates: str) -> str:
    """Why a version that was made of just this is not to be trained once more: see `versions.known_outcome`."""
    return known_outcome(settled(subject), identity, gates)


def repair(subject: str) -> bool:
    """Make both registries agree and close what was cut off.

    Returns:
        Whether something was to mend.

    Raises:
        LockError: another process is changing this subject's production version.
    """
    if not _plan(read(subject)):
        return False
    with exclusive(subject) as lock:
        return _mend(read(subject), lock)


def history(subject: str) -> list[Change]:
    """All recorded changes of the production version, oldest first; mends an interrupted one first.

    Raises:
        RunNotFoundError: no version of this subject is registered.
    """
    registered = settled(subject)
    _require_known(registered)
    return list(registered.changes)


def settled(subject: str, seen: Registered | None = None) -> Registered:
    """Both registries once they agree; waits for a change that is under way, and mends one that was cut off.

    Args:
        subject: its name.
        seen: what both held a moment ago. It counts where nothing in it is to mend or missing; else they are read anew.
    """
    if seen is not None and not _plan(seen) and (not seen.current or seen.is_complete(seen.current)):
        return seen
    deadline = time.monotonic() + 2 * locks.LEASE_S
    while True:
        registered = read(subject)
        if not _plan(registered):
            return registered
        try:
            with exclusive(subject, wait_s=0) as lock:
                return _mended(subject, lock)
        except LockError:
            if time.monotonic() > deadline:
                _logger.warning("%s: MLflow's alias may lag behind, because a change does not end.", subject)
                return registered
            time.sleep(locks.POLL_S)


def _mended(subject: str, lock: Lock) -> Registered:
    registered = read(subject)
    return read(subject) if _mend(registered, lock) else registered


def _mend(registered: Registered, lock: Lock) -> bool:
    plan = _plan(registered)
    for action in plan:
        lock.check()
        action()
    return bool(plan)


def _plan(registered: Registered) -> list[Callable[[], None]]:
    """What is to be written so that both registries agree and no record is open, in this order."""
    current = registered.current
    plan: list[Callable[[], None]] = []
    plan.extend(
        partial(_set_stage, registered, number, ModelStages.ARCHIVED)
        for number in registered.staged
        if number != current
    )
    if registered.alias != registered.mlflow_version(current):
        plan.append(partial(_set_alias, registered, current))
    closed = _closed(registered.changes, current)
    for before, after in zip(registered.changes, closed, strict=True):
        if before != after:
            plan.append(partial(_write, registered, after.target, after.key, {"outcome": after.outcome}))
    last = next(reversed(trail(closed)), "")
    if last != current:
        reason = "The stage was set by other means than dreambooth3d production."
        change = _change(registered, "outside", last, current, reason)
        # A stage that was taken away is recorded with the version that had it.
        plan.append(partial(_write, registered, current or last, change.key, replace(change, outcome="done").record()))
    return plan


def _closed(changes: tuple[Change, ...], current: str) -> list[Change]:
    """The changes with an outcome each: of those that are open, the latest is done if the stage is as it wanted it."""
    still_open = [change.key for change in changes if change.outcome == "open"]
    return [
        change
        if change.outcome != "open"
        else replace(
            change, outcome="done" if change.key == still_open[-1] and change.target == current else "abandoned"
        )
        for change in changes
    ]


def _switch(registered: Registered, lock: Lock, action: str, number: str, reason: str) -> None:
    """Intent, stage, alias, outcome: see this module's text for what an interruption leaves. Tags for people last."""
    change = _change(registered, action, registered.current, number, reason)
    lock.check()
    _write(registered, number, change.key, change.record())
    lock.check()
    _set_stage(registered, number, ModelStages.PRODUCTION)
    lock.check()
    _set_alias(registered, number)
    _write(registered, number, change.key, {"outcome": "done"})
    tell_change(registered, change)


def _change(registered: Registered, action: str, origin: str, target: str, reason: str) -> Change:
    return Change(
        key=f"{CHANGE_KEY}{uuid4().hex[:12]}",
        sequence=1 + max((change.sequence for change in registered.changes), default=0),
        action=action,
        origin=origin,
        target=target,
        reason=reason[:_REASON_LENGTH],
        who=who(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _write(registered: Registered, number: str, key: str, values: Mapping[str, object]) -> None:
    note(registered.versions[number], {key: dict(values)})


def _set_stage(registered: Registered, number: str, stage: ModelStages) -> None:
    version = registered.versions[number]
    # Without force ZenML refuses a stage that another version has, also `archived`.
    Client().update_model_version(version.model.id, version.id, stage=stage, force=True)


def _set_alias(registered: Registered, number: str) -> None:
    """Point MLflow's alias at a version; where that is not in MLflow, no alias is better than a wrong one."""
    name, version = model_name(registered.subject), registered.mlflow_version(number)
    if version is None:
        rows.client().delete_registered_model_alias(name, ALIAS)
    else:
        rows.client().set_registered_model_alias(name, ALIAS, version)


def _require_known(registered: Registered) -> None:
    if not registered.versions:
        raise RunNotFoundError(
            f"{registered.subject}: no version of this subject is registered. `dreambooth3d production show` lists the "
            "subjects that have one."
        )


def _require_complete(registered: Registered, number: str) -> None:
    if not registered.is_complete(number):
        raise PromotionError(
            f"{registered.subject}: version {number} is not complete in both registries, because its run was cut off "
            "or a part was deleted. Run the pipeline again."
        )


def _good_runs(registered: Registered) -> Iterator[str]:
    """The runs whose versions can be promoted, newest first."""
    for number in sorted(registered.versions, key=int, reverse=True):
        if registered.is_complete(number) and registered.status_of(number) in _FINISHED:
            yield registered.run_of(number)


def _require_finished(registered: Registered, number: str) -> None:
    """A run that failed while or after it registered a version leaves one that may look complete."""
    if (status := registered.status_of(number)) not in _FINISHED:
        run = registered.run_of(number)
        raise PromotionError(f"{run}: this run is {status}, not completed. Choose one that has finished.")
