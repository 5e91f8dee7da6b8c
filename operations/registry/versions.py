"""What ZenML's and MLflow's registries hold about a subject, read together, and how its production version changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from zenml.client import Client
from zenml.enums import MetadataResourceTypes, ModelStages
from zenml.models import ModelVersionResponse, RunMetadataResource
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.naming import LINEAGE, model_name, subject_of
from operations.records import rows
from operations.records.keys import current
from operations.records.status import Status, pipeline_runs, status_of

ALIAS = "production"
CHANGE_KEY = "promotion."
REFUSED = "refused"
"""Under which a version's metadata says why the gates kept it out."""
PRUNED = "pruned"
"""Under which a version's metadata, and a row's tags, say that their files were deleted."""
_PAGE = 200


@dataclass(frozen=True)
class Made:
    """A version of a subject's asset by what it was made of, all of which ZenML's registry says.

    Attributes:
        subject: its name.
        number: of the ZenML model version.
        run: name of the ZenML pipeline run that made it.
        identity: what it was made from, as its run recorded it; empty where it did not.
    """

    subject: str
    number: str
    run: str
    identity: dict[str, str]


@dataclass(frozen=True)
class Version(Made):
    """A version of a subject's asset that is complete in both registries; only its run's status makes it a good one.

    Attributes:
        mlflow_version: number of the MLflow model version.
        metrics: of the run's MLflow row, by their keys there, e.g. `evaluate/psnr_fg`.
        interrupted: whether its run was ended early.
    """

    mlflow_version: str
    metrics: dict[str, float]
    interrupted: bool


@dataclass(frozen=True)
class Change:
    """One change of the production version, as recorded with the ZenML model version that it led to.

    Attributes:
        key: under which it is recorded.
        sequence: counts the changes of a subject.
        action: promote, rollback, or outside for a stage that was set by other means than this product's.
        origin: number of the version that was production before, empty for none.
        target: number of the version that is production after it, empty for none.
        reason: in words.
        who: ZenML user and host.
        time: of the intent, ISO 8601 in UTC.
        outcome: open until it is closed as done or abandoned.
    """

    key: str
    sequence: int
    action: str
    origin: str
    target: str
    reason: str
    who: str
    time: str
    outcome: str = "open"

    def record(self) -> dict[str, Any]:
        """The values to store; a later record of the same key may add an outcome, ZenML merges the two."""
        values = asdict(self)
        del values["key"]
        if self.outcome == "open":
            del values["outcome"]
        return values


@dataclass(frozen=True)
class Registered:
    """Both registries' view of one subject at one time.

    Attributes:
        subject: its name.
        versions: ZenML model versions by number.
        entries: MLflow model versions that are complete, by the name of their run.
        alias: the MLflow version that has the alias `production`, if any.
        changes: of the production version, oldest first.
    """

    subject: str
    versions: Mapping[str, ModelVersionResponse]
    entries: Mapping[str, ModelVersion]
    alias: str | None
    changes: tuple[Change, ...]

    @property
    def staged(self) -> list[str]:
        """Numbers of the versions whose ZenML stage is production: one at most, if nobody bypassed the lock."""
        return [number for number, version in self.versions.items() if version.stage == ModelStages.PRODUCTION]

    @property
    def current(self) -> str:
        """Number of the production version, empty where there is none.

        Of several, the one that the latest change led to, else the newest.
        """
        staged = self.staged
        latest = [change.target for change in reversed(self.changes) if change.target in staged]
        return latest[0] if latest else max(staged, key=int, default="")

    def run_of(self, number: str) -> str:
        """Name of the run that registered a version, empty where it never came so far."""
        return str(self.versions[number].run_metadata.get("zenml.pipeline_run", ""))

    def mlflow_version(self, number: str) -> str | None:
        """The MLflow version of the same run; None where it is missing or not complete."""
        entry = self.entries.get(self.run_of(number)) if number in self.versions else None
        return None if entry is None else str(entry.version)

    def is_complete(self, number: str) -> bool:
        """Whether both registries hold all of a version."""
        wanted = {*LINEAGE, "bundle"}
        held = set(self.versions[number].run_metadata) if number in self.versions else set()
        return self.mlflow_version(number) is not None and wanted <= held and PRUNED not in held

    def identity_of(self, number: str) -> dict[str, str]:
        """What a version was made of; empty where its run did not record it."""
        return {str(key): str(value) for key, value in self._noted(number, "identity").items()}

    def refused(self, number: str) -> dict[str, str]:
        """Why the gates kept a version out: reason, production, gates; empty where they did not."""
        return self._noted(number, REFUSED)

    def _noted(self, number: str, key: str) -> dict[str, Any]:
        """What is noted with a version under a key that holds several values."""
        return dict(cast(Mapping[str, Any], self.versions[number].run_metadata.get(key) or {}))

    def made(self, number: str) -> Made:
        """What a version was made of, without its figures, which take two more requests."""
        return Made(self.subject, number, self.run_of(number), self.identity_of(number))

    def version(self, number: str) -> Version:
        """A complete version with its figures."""
        entry = self.entries[self.run_of(number)]
        row = _row(entry)
        return Version(
            subject=self.subject,
            number=number,
            run=self.run_of(number),
            mlflow_version=str(entry.version),
            metrics=current(row.data.metrics) if row else {},
            identity=self.identity_of(number),
            interrupted=self._status(number, row) == "interrupted",
        )

    def status_of(self, number: str) -> Status:
        """How the run that registered a version stands."""
        entry = self.entries.get(self.run_of(number))
        return self._status(number, _row(entry) if entry else None)

    def _status(self, number: str, row: Run | None) -> Status:
        run = pipeline_runs([self.run_of(number)]).get(self.run_of(number))
        known = run.status if run else None
        if row is None:
            return status_of(known, tags=self.versions[number].run_metadata)
        return status_of(known, row.info.status, row.data.tags)


def read(subject: str) -> Registered:
    """Read both registries; a subject that neither knows has nothing in it."""
    versions, client = _zenml_versions(model_name(subject)), rows.client()
    entries = _mlflow_versions(client, model_name(subject))
    return registered(subject, versions, entries, _alias(client, model_name(subject)))


def registered(
    subject: str, versions: Iterable[ModelVersionResponse], entries: Iterable[ModelVersion], alias: str | None
) -> Registered:
    """What was read of one subject: all of its ZenML and MLflow model versions, and MLflow's alias `production`."""
    by_number = {str(version.number): version for version in versions}
    return Registered(subject, by_number, _complete(entries), alias, changes_of(by_number.values()))


def note(version: ModelVersionResponse, values: Mapping[str, Any]) -> None:
    """Write metadata of a ZenML model version; ZenML merges the dicts of one key."""
    resource = RunMetadataResource(id=version.id, type=MetadataResourceTypes.MODEL_VERSION)
    Client().create_run_metadata(dict(values), resources=[resource])


def subjects() -> list[str]:
    """All subjects of which a version is registered."""
    names = [subject_of(model.name) for model in depaginate(Client().list_models, size=_PAGE)]
    return sorted(name for name in names if name)


def trail(changes: Iterable[Change]) -> list[str]:
    """Numbers of the versions that led to the present production version, which is the last: a rollback takes back.

    An empty number stands for a time without a production version.
    """
    numbers: list[str] = []
    for change in changes:
        if change.outcome != "done":
            continue
        if change.action == "rollback" and change.target in numbers:
            while numbers[-1] != change.target:
                numbers.pop()
        else:
            numbers.append(change.target)
    return numbers


def taken_back(changes: Iterable[Change]) -> dict[str, Change]:
    """The rollbacks by the number of the version that each took out of production, and that has not come back since."""
    back: dict[str, Change] = {}
    for change in changes:
        if change.outcome == "done":
            back.pop(change.target, None)
            if change.action == "rollback":
                back[change.origin] = change
    return back


def known_outcome(registered: Registered, identity: Mapping[str, str], gates: str) -> str:
    """Why a version that was made of just this is not to be trained once more; empty where nothing speaks against it.

    It was in production and rolled back, or the same gates have kept it out beside the same production version.
    """
    back = taken_back(registered.changes)
    for number in sorted(registered.versions, key=int, reverse=True):
        if registered.identity_of(number) != dict(identity):
            continue
        same, refused = f"version {number}, which was made of the same", registered.refused(number)
        if change := back.get(number):
            return f"{same}, was rolled back on {change.time[:10]}: {change.reason}"
        if (refused.get("gates"), refused.get("production")) == (gates, registered.current):
            return f"{same}, was kept out: {refused['reason']}"
    return ""


def _zenml_versions(name: str) -> list[ModelVersionResponse]:
    # Never by name alone: ZenML would take a model whose name only begins like this one.
    models = Client().list_models(name=f"equals:{name}").items
    if not models:
        return []
    return list(depaginate(Client().list_model_versions, model=models[0].id, hydrate=True, size=_PAGE))


def _mlflow_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _complete(found: Iterable[ModelVersion]) -> dict[str, ModelVersion]:
    """Those that are complete, by the name of their run; the newest, where a run has several."""
    entries: dict[str, ModelVersion] = {}
    for entry in found:
        run = entry.tags.get("zenml.pipeline_run")
        complete = entry.status == "READY" and set(LINEAGE) <= entry.tags.keys()
        if run and complete and (run not in entries or int(entry.version) > int(entries[run].version)):
            entries[run] = entry
    return entries


def _alias(client: MlflowClient, name: str) -> str | None:
    try:
        found = client.get_registered_model(name).aliases.get(ALIAS)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return None if found is None else str(found)


def changes_of(versions: Iterable[ModelVersionResponse]) -> tuple[Change, ...]:
    """The changes that one subject's versions record, oldest first."""
    changes = [
        Change(key=key, **cast(dict[str, Any], values))
        for version in versions
        for key, values in version.run_metadata.items()
        if key.startswith(CHANGE_KEY)
    ]
    return tuple(sorted(changes, key=lambda change: (change.sequence, change.time)))


def _row(entry: ModelVersion) -> Run | None:
    """The row of the run that made a version; None where it was deleted for good."""
    try:
        return rows.client().get_run(str(entry.run_id))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
