"""`dreambooth3d production`: which version readers see, and how that came."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dreambooth3d.cli.fitting import print_table
from dreambooth3d.cli.show import number, print_json
from dreambooth3d.environment import console, quiet
from dreambooth3d.errors import PromotionError, RunNotFoundError
from dreambooth3d.naming import LINEAGE
from operations.records import rows

if TYPE_CHECKING:
    from operations.registry.promotion import Change, Version

FIGURES = ("psnr", "psnr_fg", "clip_i", "r_precision")


def show_production(subject: str | None, as_json: bool) -> None:
    """Print the production version of one subject, or of all.

    Raises:
        RunNotFoundError: no version of this subject is registered.
        PromotionError: the subject's production version is damaged.
    """
    quiet()
    from operations.registry.versions import subjects

    known = subjects()
    if subject is None:
        _show_all([_of(name) for name in known], as_json)
    elif subject in known:
        _show_one(subject, as_json)
    else:
        shown = ", ".join(known) or "none yet: start one with `dreambooth3d train`"
        raise RunNotFoundError(f"{subject}: no version of this subject is registered. Subjects that have one: {shown}.")


def promote_run(name: str, reason: str | None) -> str:
    """Make the version of a run production.

    Returns:
        What happened, in one sentence.

    Raises:
        RunNotFoundError: there is no such run, or it registered nothing.
        PromotionError: its version cannot become production.
    """
    quiet()
    from operations.registry.promotion import candidate, production, promote

    row = rows.find_row(name)
    run, subject = rows.row_name(row), row.data.tags.get("subject")
    if subject is None or not set(LINEAGE) - {"status"} <= row.data.tags.keys():
        raise PromotionError(
            f"{run}: this run is {rows.status_of(row)} and registered nothing. Choose one that finished."
        )
    version, before = candidate(subject, run), production(subject)
    if before == version:
        return f"{subject}: version {version.number} ({run}) is in production already."
    promote(version, reason or f"promoted by {getpass.getuser()}")
    instead = f", instead of version {before.number} ({before.run})" if before else ""
    return f"{subject}: version {version.number} ({run}) is now in production{instead}."


def roll_back(subject: str, reason: str | None) -> str:
    """Make the version production that was before.

    Returns:
        What happened, in one sentence.

    Raises:
        RunNotFoundError: no version of this subject is registered.
        PromotionError: there is none to go back to.
    """
    quiet()
    from operations.registry.promotion import rollback

    version = rollback(subject, reason or f"rolled back by {getpass.getuser()}")
    return f"{subject}: version {version.number} ({version.run}) is in production again."


def show_history(subject: str, as_json: bool) -> None:
    """Print all changes of a subject's production version, oldest first.

    Raises:
        RunNotFoundError: no version of this subject is registered.
    """
    quiet()
    from operations.registry.promotion import history

    entries = [_entry(change) for change in history(subject)]
    if as_json:
        print_json(entries)
        return
    table = Table()
    for name in ("time", "action", "from", "to", "outcome", "who", "reason"):
        table.add_column(name)
    for entry in entries:
        table.add_row(*(entry[str(column.header)] for column in table.columns))
    console().print(table)


def _of(subject: str) -> dict[str, Any]:
    """One subject of the list; a damaged one must not hide the others."""
    from operations.registry.promotion import production

    try:
        version = production(subject)
    except PromotionError as error:
        return {"subject": subject, "number": None, "problem": str(error)}
    return _described(version) if version else {"subject": subject, "number": None}


def _described(version: Version) -> dict[str, Any]:
    values = asdict(version)
    return values | {"metrics": dict(sorted(version.metrics.items()))}


def _entry(change: Change) -> dict[str, str]:
    return {
        "time": change.time,
        "action": change.action,
        "from": change.origin,
        "to": change.target,
        "outcome": change.outcome,
        "who": change.who,
        "reason": change.reason,
    }


def _show_all(entries: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(entries)
        return
    rows = []
    for entry in entries:
        figures = [entry.get("metrics", {}).get(f"evaluate/{name}") for name in FIGURES]
        where = entry.get("run") or entry.get("problem") or "none in production"
        rows.append([*map(number, (entry["subject"], entry["number"], where, *figures))])
    print_table(("subject", "version", "run", *FIGURES), rows, ("r_precision", "psnr", "clip_i"))


def _show_one(subject: str, as_json: bool) -> None:
    from operations.registry.promotion import history, production

    version = production(subject)
    if as_json:
        print_json(_described(version) if version else {"subject": subject, "number": None})
        return
    out = Console(highlight=False, soft_wrap=True)
    if version is None:
        out.print(f"{subject}: no version is in production.", markup=False, emoji=False)
        return
    mark = ", interrupted" if version.interrupted else ""
    out.print(
        f"{subject}: version {version.number} of run {version.run}{mark}; MLflow version {version.mlflow_version}",
        markup=False,
        emoji=False,
    )
    latest = [change for change in history(subject) if change.outcome == "done"]
    if latest:
        out.print(f"{latest[-1].action} at {latest[-1].time} by {latest[-1].who}: {latest[-1].reason}", markup=False)
    for title, values in (("metrics", _described(version)["metrics"]), ("identity", version.identity)):
        table = Table(title=title, title_justify="left", show_header=False)
        for key, value in values.items():
            table.add_row(key, number(value))
        if values:
            out.print(table)
