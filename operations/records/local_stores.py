"""ZenML's and MLflow's records read as the SQLite files that they are, where both lie on this machine.

Importing ZenML and MLflow takes five seconds of computing, and what a list shows is a few lines of two databases. They
are read directly, and only read, where nothing else can be meant: no server, the stack's tracker a file, and both files
laid out as by the versions that are pinned. In any other case `local_stores` gives None, and the clients are asked.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dreambooth3d.naming import subject_of
from operations.records.processes import PROCESS, is_alive, is_here
from operations.records.row import RUN_TAG, KnownRun, Row, row_name

ZENML_LAYOUT, MLFLOW_LAYOUT = "0.98.0", "dc11669786a5"
"""Revisions of the two databases, as each notes its own."""
_SQLITE = "sqlite:///"
_PER_QUERY = 500  # SQLite takes a limited number of parameters
_WAIT_S = 5.0


class RunStatus(StrEnum):
    """ZenML's statuses that are an end; every other one is none."""

    COMPLETED = "completed"
    CACHED = "cached"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    RETRIED = "retried"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> RunStatus:  # noqa: ARG003
        return cls.OTHER

    @property
    def is_finished(self) -> bool:
        """Whether it is an end."""
        return self is not RunStatus.OTHER

    @property
    def is_successful(self) -> bool:
        """Whether it is a good end."""
        return self in (RunStatus.COMPLETED, RunStatus.CACHED, RunStatus.SKIPPED)


@dataclass(frozen=True)
class LocalInfo:
    """See `row.RowInfo`."""

    run_id: str
    run_name: str | None
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str | None


@dataclass(frozen=True)
class LocalData:
    """See `row.RowData`."""

    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]


@dataclass(frozen=True)
class LocalRow:
    """See `row.Row`."""

    info: LocalInfo
    data: LocalData


@dataclass(frozen=True)
class LocalStores:
    """Both databases.

    Attributes:
        zenml, mlflow: their files.
        stack: name of ZenML's active stack.
        project: id of ZenML's active project.
        experiment: how the names of the experiments begin whose rows are read.
    """

    zenml: Path
    mlflow: Path
    stack: str
    project: str
    experiment: str

    def newest(self, limit: int | None) -> Sequence[Row]:
        """The rows, newest first, as `rows.list_rows` gives them."""
        with _reading(self.mlflow) as found:
            ids = [run for run, *_ in self._all_runs(found)]
            return _rows(found, ids[:limit])

    def named(self, name: str) -> Sequence[Row]:
        """The rows one of whose names, or whose id, is this one, or else begins so; newest first."""
        with _reading(self.mlflow) as found:
            runs = [(run, str(named or ""), str(tagged or named)) for run, named, tagged in self._all_runs(found)]
            matches = [names[0] for names in runs if name in names]
            matches = matches or [names[0] for names in runs if any(text.startswith(name) for text in names)]
            return _rows(found, matches)

    def _all_runs(self, found: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
        """Id, name and tagged name of every row, newest first."""
        return found.execute(
            "SELECT runs.run_uuid, runs.name, tags.value FROM runs JOIN experiments USING (experiment_id) "
            "LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ? "
            "WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active' "
            "AND substr(experiments.name, 1, length(?)) = ? "
            "ORDER BY runs.start_time DESC, runs.run_uuid",
            (RUN_TAG, self.experiment, self.experiment),
        ).fetchall()

    def known_runs(self, rows: Iterable[Row]) -> dict[str, KnownRun]:
        """What ZenML knows of the runs of rows, by their names."""
        names = list(dict.fromkeys(map(row_name, rows)))
        with _reading(self.zenml) as found:
            query = (
                "SELECT pipeline_run.name, status, start_time, end_time, "
                "coalesce(pipeline_snapshot.pipeline_configuration, pipeline_run.pipeline_configuration) "
                "FROM pipeline_run LEFT JOIN pipeline_snapshot ON pipeline_snapshot.id = pipeline_run.snapshot_id "
                "WHERE pipeline_run.project_id = ? AND pipeline_run.name IN ({})"
            )
            return {name: _known(*values) for name, *values in _chosen(found, query, names, self.project)}


def _known(status: str, start: str | None, end: str | None, configuration: str | None) -> KnownRun:
    config = json.loads(configuration or "{}")
    extra, model = config.get("extra") or {}, config.get("model") or {}
    times = [datetime.fromisoformat(time) for time in (start, end) if time]
    stands, process = RunStatus(status), extra.get(PROCESS)
    return KnownRun(
        stands,
        (times[1] - times[0]).total_seconds() if len(times) == 2 else None,
        str(extra.get("preset", "")),
        subject_of(str(model.get("name") or "")) or "",
        not stands.is_finished and status != "paused" and is_here(process) and not is_alive(process),
    )


def _rows(found: sqlite3.Connection, ids: Sequence[str]) -> list[Row]:
    """Whole rows in the order of their ids."""
    columns = "run_uuid, name, status, start_time, end_time, artifact_uri"
    infos = {
        run: LocalInfo(run, name, status, start or 0, end, uri)
        for run, name, status, start, end, uri in _chosen(
            found, f"SELECT {columns} FROM runs WHERE run_uuid IN ({{}})", ids
        )
    }
    data = {run: LocalData({}, {}, {}) for run in ids}
    tables = (("tags", "value"), ("params", "value"), ("latest_metrics", "CASE is_nan WHEN 0 THEN value END"))
    for table, value in tables:
        for run, key, text in _chosen(
            found, f"SELECT run_uuid, key, {value} FROM {table} WHERE run_uuid IN ({{}})", ids
        ):
            target: Any = getattr(data[run], table.removeprefix("latest_"))
            target[key] = math.nan if text is None and table == "latest_metrics" else text
    return [LocalRow(infos[run], data[run]) for run in ids if run in infos]


def _chosen(found: sqlite3.Connection, query: str, chosen: Sequence[str], *first: str) -> Iterator[tuple[Any, ...]]:
    """The lines of a query for any number of values, which `{}` stands for."""
    for start in range(0, len(chosen), _PER_QUERY):
        part = chosen[start : start + _PER_QUERY]
        yield from found.execute(query.format(", ".join("?" * len(part))), (*first, *part))


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, and that waits for whoever does."""
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_WAIT_S)) as found:
        yield found


def local_stores(experiment: str) -> LocalStores | None:
    """The stores of the active state, None where they are not both files here that are laid out as expected.

    Args:
        experiment: how the names of the experiments begin whose rows are read.
    """
    try:
        return _local_stores(experiment)
    # Whatever is not as expected, the clients know better, and say what is broken.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, sqlite3.Error):
        return None


def _local_stores(experiment: str) -> LocalStores | None:
    if any(name.startswith(("ZENML_STORE_", "ZENML_ACTIVE_", "ZENML_LOCAL_STORES_")) for name in os.environ):
        return None
    settings = Path(os.environ["ZENML_CONFIG_PATH"])
    everywhere = _settings(settings / "config.yaml")
    store = everywhere["store"]
    if store["type"] != "sql" or not store["url"].startswith(_SQLITE):
        return None
    here = _settings(Path(os.environ["ZENML_REPOSITORY_PATH"]) / ".zen" / "config.yaml")
    active = {name: here.get(name) or everywhere[name] for name in ("active_stack_id", "active_project_id")}
    zenml = Path(store["url"].removeprefix(_SQLITE))
    with _reading(zenml) as found:
        if not _laid_out(found, ZENML_LAYOUT):
            return None
        stack = _id(active["active_stack_id"])
        ((name,),) = found.execute("SELECT name FROM stack WHERE id = ?", (stack,)).fetchall()
        mlflow = _tracker_file(found, stack, settings / "local_stores")
    if mlflow is None:
        return None
    with _reading(mlflow) as found:
        if not _laid_out(found, MLFLOW_LAYOUT):
            return None
    return LocalStores(zenml, mlflow, name, _id(active["active_project_id"]), experiment)


def _settings(file: Path) -> dict[str, Any]:
    import yaml

    return yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if file.is_file() else {}


def _id(text: str) -> str:
    """An id as ZenML's database holds it."""
    return text.replace("-", "")


def _laid_out(found: sqlite3.Connection, revision: str) -> bool:
    return found.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]


def _tracker_file(found: sqlite3.Connection, stack: str, stores: Path) -> Path | None:
    """MLflow's database, by the stack's one tracker: the file that it names, or the one in its local artifact store."""
    components: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for kind, identity, flavor, configuration in found.execute(
        "SELECT type, id, flavor, configuration FROM stack_component "
        "JOIN stack_composition ON component_id = id WHERE stack_id = ?",
        (stack,),
    ):
        entry = identity, flavor, json.loads(base64.b64decode(configuration))
        components.setdefault(kind, []).append(entry)
    ((_, flavor, tracker),) = components["experiment_tracker"]
    if flavor != "mlflow":
        return None
    uri = tracker.get("tracking_uri")
    if uri:
        return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) and "?" not in uri else None
    ((identity, flavor, store),) = components["artifact_store"]
    if flavor != "local":
        return None
    dashed = "-".join((identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:]))
    return Path(store.get("path") or stores / dashed) / "mlflow.db"
