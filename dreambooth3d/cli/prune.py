"""`dreambooth3d prune`: delete the checkpoints and artifacts of old runs (the rule: `registry.retention`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from zenml.client import Client
from zenml.models import ArtifactVersionResponse, ModelVersionResponse, PipelineRunResponse

from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.photos.remote import forget_unused
from operations.records import rows
from operations.registry.lock import exclusive
from operations.registry.retention import LEFTOVER, Plan, is_record, make_plan, store_of
from operations.registry.versions import PRUNED, note, subjects


def run_prune(say: Callable[[str], None], keep_runs: int, older_than_days: float, dry_run: bool = False) -> Plan:
    """Delete what the policy allows; the rows in MLflow stay and are tagged `pruned`.

    Safe to interrupt and to give again: first the versions are tagged, then their runs go, so that no later step is
    served from them by the cache, then files and entries, each only if no run uses it by now.

    Args:
        say: takes one line per thing that goes.
        keep_runs: newest successful runs that stay per subject.
        older_than_days: younger runs stay as well, and local copies of datasets that were in use since.
        dry_run: say it only.

    Returns:
        What was, or would be, deleted.

    Raises:
        ConfigError: a negative number, or files that cannot be read or deleted.
    """
    if keep_runs < 0 or older_than_days < 0:
        raise ConfigError("prune: --keep-runs and --older-than cannot be negative. Give 0 or more.")
    older_than, now = timedelta(days=older_than_days), datetime.now(UTC).replace(tzinfo=None)
    verb = "would be deleted" if dry_run else "deleted"
    with ExitStack() as held:
        if not dry_run:
            # Nobody may promote, or go back to, what is about to go.
            for subject in subjects():
                held.enter_context(exclusive(subject))
        plan = make_plan(keep_runs, older_than, now)
        for name, reason in plan.kept.items():
            say(f"{name}: stays, {reason}.")
        if not dry_run:
            _tag(plan.versions)
        for run in plan.runs:
            if not dry_run:
                _tag_row(run.name)
                _delete_run(run)
            say(f"{run.name}: {verb}.")
        for model in plan.models:
            if not dry_run:
                _delete_model(model)
            say(f"{model.model.name} version {model.number}: {verb}.")
    for folder in forget_unused(older_than, dry_run):
        say(f"{folder}: {verb}.")
    count = 0
    for version in plan.versions:
        if dry_run or _delete_version(version):
            count += 1
            say(f"{version.name} version {version.version} ({version.uri}): {verb}.")
    say(f"{len(plan.runs)} runs and {count} artifacts {verb}." if plan.runs or count else "Nothing to prune.")
    return plan


def _tag(versions: tuple[ArtifactVersionResponse, ...]) -> None:
    for version in versions:
        _ignore_missing(Client().update_artifact_version, version.id, add_tags=[LEFTOVER])


def _tag_row(name: str) -> None:
    """Tag the run's row, if it has one."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for row in rows.list_rows(limit=1000):
        if rows.row_name(row) == name:
            rows.client().set_tag(row.info.run_id, PRUNED, now)


def _delete_run(run: PipelineRunResponse) -> None:
    _ignore_missing(Client().delete_pipeline_run, run.id)


def _delete_model(model: ModelVersionResponse) -> None:
    """Delete a version's entry; one that tells of a change of production stays, marked as without files."""
    if is_record(model):
        _ignore_missing(note, model, {PRUNED: True})
    else:
        _ignore_missing(Client().delete_model_version, model.id)


def _delete_version(version: ArtifactVersionResponse) -> bool:
    """Delete a version's files, then its entry, unless a run has come to use it; whether it is gone."""
    if _is_used(version.id):
        _ignore_missing(Client().update_artifact_version, version.id, remove_tags=[LEFTOVER])
        return False
    try:
        _delete_files(version)
    except Exception as error:
        raise ConfigError(
            f"{version.uri}: cannot be deleted ({gist(error)}). Check that its artifact store is reachable and give "
            "the command again."
        ) from error
    _ignore_missing(Client().delete_artifact_version, version.id)
    return True


def _is_used(identity: UUID) -> bool:
    client = Client()
    known = client.list_artifact_versions(id=identity, size=1).items
    return bool(known) and not client.list_artifact_versions(id=identity, only_unused=True, size=1).items


def _delete_files(version: ArtifactVersionResponse) -> None:
    """Through the artifact store that holds them; files that are gone already are no error."""
    store = store_of(version)
    if store.exists(version.uri):
        store.rmtree(version.uri)


def _ignore_missing(action: Callable[..., object], *arguments: object, **options: object) -> None:
    """Somebody else, or an earlier command that was interrupted, may have done it already."""
    with suppress(KeyError):
        action(*arguments, **options)
