"""What of old runs may go: nothing that a production, staged, latest, kept or running version needs.

A run needs the outputs and inputs of its steps. Those of a step that was served from the cache belong to an older run,
and a checkpoint's weights lie in yet another artifact: both are followed, so an old run's artifact may stay when the
run itself goes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from zenml.artifact_stores import BaseArtifactStore
from zenml.client import Client
from zenml.enums import ModelStages, StackComponentType
from zenml.models import ArtifactVersionResponse, ModelVersionResponse, PipelineRunResponse
from zenml.stack import StackComponent
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.naming import model_name
from materializers.files import STORE, join
from operations.records.status import Status, status_of
from operations.registry.versions import CHANGE_KEY, PRUNED, changes_of, trail

STAGES = (ModelStages.PRODUCTION, ModelStages.STAGING)


@dataclass(frozen=True)
class Plan:
    """What a policy asks for.

    Attributes:
        runs: the pipeline runs to delete, oldest first.
        versions: the artifact versions to delete with their files.
        models: the model versions whose runs all go; those that record a change of production stay as records.
        kept: why each run that stays stays, by its name.
    """

    runs: tuple[PipelineRunResponse, ...]
    versions: tuple[ArtifactVersionResponse, ...]
    models: tuple[ModelVersionResponse, ...]
    kept: Mapping[str, str]


def make_plan(keep_runs: int, older_than: timedelta, now: datetime) -> Plan:
    """Decide what goes, and read nothing but lists and small JSON files.

    Args:
        keep_runs: newest successful runs that stay per subject and pipeline; failed ones stay if newer than these.
        older_than: younger runs stay as well.
        now: UTC without a time zone, as ZenML has it.
    """
    runs = product_runs()
    models = model_versions()
    protected = _protected_models(models, {run.id: status_of(run.status) for run in runs})
    kept = _young_runs(runs, keep_runs, older_than, now)
    needed: set[UUID] = set()
    for version, reason in protected:
        needed |= set(linked_artifacts(version))
        kept |= dict.fromkeys(linked_runs(version), reason)
    going = [run for run in runs if run.id not in kept]
    staying = [run for run in runs if run.id in kept]
    for run in staying:
        needed |= set(used_artifacts(run))
    every = depaginate(Client().list_artifact_versions, hydrate=True)
    needed = close_over_references(needed, every)
    theirs = {identity for run in going for identity in used_artifacts(run)}
    versions = removable([version for version in every if version.id in theirs or is_leftover(version)], every, needed)
    gone = {run.id for run in going}
    safe = {version.id for version, _ in protected}
    husks = [
        version
        for version in models
        if version.id not in safe
        and PRUNED not in version.run_metadata
        and (linked := linked_runs(version))
        and set(linked) <= gone
    ]
    reasons = {run.name: kept[run.id] for run in staying}
    return Plan(tuple(reversed(going)), tuple(versions), tuple(husks), reasons)


LEFTOVER = "dreambooth3d-pruned"
"""Tag of artifact versions that are about to be deleted: what an interrupted command leaves, the next one finds."""


def is_leftover(version: ArtifactVersionResponse) -> bool:
    """Whether an earlier, interrupted command was about to delete a version."""
    return any(tag.name == LEFTOVER for tag in version.tags)


def product_runs() -> list[PipelineRunResponse]:
    """This product's runs, newest first."""
    runs = depaginate(Client().list_pipeline_runs, sort_by="desc:created", hydrate=True)
    return [run for run in runs if "preset" in run.config.extra]


def _young_runs(
    runs: Iterable[PipelineRunResponse], keep_runs: int, older_than: timedelta, now: datetime
) -> dict[UUID, str]:
    """The runs that stay by number, age or because they are unfinished, with the reason; `runs` is newest first."""
    kept, counts = {}, {}
    for run in runs:
        subject = (run.pipeline.name if run.pipeline else "", run.config.model.name if run.config.model else "")
        count = counts.get(subject, 0)
        status = status_of(run.status)
        if status == "running":
            kept[run.id] = "it is not finished"
        elif now - run.created.replace(tzinfo=None) < older_than:
            kept[run.id] = f"it is younger than {older_than / timedelta(days=1):g} days"
        elif count < keep_runs:
            kept[run.id] = f"it is among the newest {keep_runs} of its subject"
        counts[subject] = count + (status == "completed")
    return kept


def model_versions() -> list[ModelVersionResponse]:
    """Every version of this product's models."""
    names = [model.name for model in depaginate(Client().list_models)]
    return [
        version
        for name in names
        if name.startswith(model_name(""))
        for version in depaginate(Client().list_model_versions, model_name_or_id=name, hydrate=True)
    ]


def _protected_models(
    versions: Iterable[ModelVersionResponse], runs: Mapping[UUID, Status]
) -> list[tuple[ModelVersionResponse, str]]:
    """The versions whose runs stay, with the reason: in production, staged, a subject's latest, the way back."""
    by_model: dict[UUID, dict[str, ModelVersionResponse]] = {}
    for version in sorted(versions, key=lambda version: version.number):
        by_model.setdefault(version.model.id, {})[str(version.number)] = version
    protected = []
    for own in by_model.values():
        reasons = dict.fromkeys(_latest(own, runs), "the latest")
        way = [number for number in trail(changes_of(own.values())) if number in own]
        archived = [number for number, version in own.items() if version.stage == ModelStages.ARCHIVED]
        reasons |= dict.fromkeys(way[-2:-1] or archived[-1:], "the one to go back to")
        reasons |= {number: f"in {version.stage}" for number, version in own.items() if version.stage in STAGES}
        protected += [
            (own[number], f"{own[number].model.name} version {number} is {reason}")
            for number, reason in reasons.items()
        ]
    return protected


def _latest(own: dict[str, ModelVersionResponse], runs: Mapping[UUID, Status]) -> list[str]:
    """Number of the newest version of a run that completed, and of newer ones of which nobody knows it any more.

    ZenML makes a version when a run begins, so that the newest of all may be that of a run that failed.
    """
    found = []
    for number in reversed(own):
        known = [runs[run] for run in linked_runs(own[number]) if run in runs]
        if not known or "completed" in known:
            found.append(number)
        if "completed" in known:
            break
    return found


def is_record(version: ModelVersionResponse) -> bool:
    """Whether a version tells of a change of production, so that its entry stays when its files go."""
    return any(key.startswith(CHANGE_KEY) for key in version.run_metadata)


def linked_runs(version: ModelVersionResponse) -> list[UUID]:
    """The pipeline runs that have, or had, a share in a version."""
    links = depaginate(Client().list_model_version_pipeline_run_links, model_version_id=version.id)
    return [link.pipeline_run.id for link in links]


def linked_artifacts(version: ModelVersionResponse) -> list[UUID]:
    """The artifact versions that belong to a model version."""
    links = depaginate(Client().list_model_version_artifact_links, model_version_id=version.id)
    return [link.artifact_version.id for link in links]


def used_artifacts(run: PipelineRunResponse) -> Iterator[UUID]:
    """Every artifact version that a run's steps took or made; a cached step's are those of the run that made them."""
    for step in run.steps.values():
        for found in (*step.inputs.values(), *step.outputs.values()):
            yield from (version.id for version in found)


def close_over_references(needed: Collection[UUID], every: Collection[ArtifactVersionResponse]) -> set[UUID]:
    """The needed artifact versions, and those in which what they reference lies, and so on."""
    by_id = {version.id: version for version in every}
    closed, waiting = set(), [identity for identity in needed if identity in by_id]
    while waiting:
        identity = waiting.pop()
        if identity in closed:
            continue
        closed.add(identity)
        targets = references(by_id[identity])
        waiting += [version.id for version in every if any(_lies_in(target, version.uri) for target in targets)]
    return closed


def references(version: ArtifactVersionResponse) -> set[str]:
    """The places in its artifact store that an artifact's JSON files name, such as a checkpoint's weights.

    Raises:
        ConfigError: the store cannot be read, so that nobody knows what is needed.
    """
    try:
        store = store_of(version)
        if not store.exists(version.uri) or not store.isdir(version.uri):
            return set()
        root, found = str(store.path).rstrip("/"), set()
        for name in map(str, store.listdir(version.uri)):
            if name.endswith(".json"):
                with store.open(join(version.uri, name), "rb") as file:
                    found |= {place for text in _strings(json.load(file)) if (place := _place(text, root))}
    # Each kind of store raises errors of its own.
    except Exception as error:
        raise ConfigError(
            f"{version.uri}: cannot be read ({gist(error)}), so that nothing was deleted. Check that its artifact "
            "store is reachable and give the command again."
        ) from error
    return found


def store_of(version: ArtifactVersionResponse) -> BaseArtifactStore:
    """The artifact store that holds a version, which need not be that of the active stack."""
    client = Client()
    if version.artifact_store_id is None:
        return client.active_stack.artifact_store
    return _store(version.artifact_store_id)


@lru_cache
def _store(identity: UUID) -> BaseArtifactStore:
    model = Client().get_stack_component(StackComponentType.ARTIFACT_STORE, identity)
    return cast(BaseArtifactStore, StackComponent.from_model(model))


def _place(text: str, root: str) -> str | None:
    if text.startswith(STORE):
        return join(root, text.removeprefix(STORE))
    return text if text.startswith(f"{root}/") else None


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)


def _lies_in(place: str, uri: str) -> bool:
    return place == uri or place.startswith(f"{uri.rstrip('/')}/")


def removable(
    wanted: Iterable[ArtifactVersionResponse], every: Iterable[ArtifactVersionResponse], needed: Collection[UUID]
) -> list[ArtifactVersionResponse]:
    """Of the wanted versions those that nobody needs, and whose folder holds, or lies in, nothing that is needed."""
    places = [version.uri for version in every if version.id in needed]
    return [
        version
        for version in wanted
        if version.id not in needed
        and not any(_lies_in(place, version.uri) or _lies_in(version.uri, place) for place in places)
    ]
