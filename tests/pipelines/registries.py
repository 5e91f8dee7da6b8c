"""ZenML's and MLflow's real registries in a folder of a test's own, filled without training."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import MetadataResourceTypes
from zenml.models import RunMetadataResource

from dreambooth3d.cli.setup import register_stack
from dreambooth3d.environment import ACTIVE, HOME, SETTINGS
from dreambooth3d.naming import model_name
from operations.records import rows


@contextmanager
def own_registries(root: Path) -> Iterator[dict[str, str]]:
    """Use a ZenML and an MLflow below `root` in this process, and give the variables with which others use them."""
    variables = {name: value.format(root=root) for name, value in SETTINGS.items()} | {
        ACTIVE: str(root),
        HOME: str(root),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        _forget()
        event.listen(Engine, "connect", _do_not_wait_for_the_disk)
        register_stack(root)
        Client._reset_instance()  # it knew another active stack
        yield variables
        event.remove(Engine, "connect", _do_not_wait_for_the_disk)
    _forget()


def _do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    """No test cuts the power; what a dead process wrote is there all the same."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@contextmanager
def short_locks() -> Iterator[None]:
    """Wait for a locked database for a tenth of a second: MLflow waits for twenty, and says so in each session."""

    def shorter(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
        return ("PRAGMA busy_timeout = 100" if "busy_timeout" in statement else statement), parameters

    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", shorter)


def _forget() -> None:
    """ZenML keeps its settings in two singletons; another test of this process may have other settings."""
    GlobalConfiguration._reset_instance()
    Client._reset_instance()


def lineage(subject: str, run: str, status: str = "completed") -> dict[str, str]:
    """What publish writes into both registries."""
    return {
        "data.dvc_md5": "untracked", "data.hash": "untracked:0", "git.commit": "unknown", "zenml.pipeline_run": run,
        "subject": subject, "status": status,
    }  # fmt: skip


def add_version(
    subject: str, run: str, *, psnr_fg: float = 10.0, status: str = "completed", in_mlflow: bool = True,
    identity: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """Register a version in both registries, in publish's order; without MLflow it is as a run that died in between."""
    name, client = model_name(subject), Client()
    if not client.list_models(name=f"equals:{name}").items:
        client.create_model(name)
    version = client.create_model_version(name)
    metadata = lineage(subject, run, status) | {"bundle": f"bundles/{run}"}
    if identity is not None:
        metadata["identity"] = identity
    resource = RunMetadataResource(id=version.id, type=MetadataResourceTypes.MODEL_VERSION)
    client.create_run_metadata(metadata, resources=[resource])
    if in_mlflow:
        _add_to_mlflow(rows.client(), name, lineage(subject, run, status), psnr_fg)


def _add_to_mlflow(mlflow: MlflowClient, name: str, tags: dict[str, str], psnr_fg: float) -> None:
    experiment = mlflow.get_experiment_by_name(rows.EXPERIMENT)
    number = experiment.experiment_id if experiment else mlflow.create_experiment(rows.EXPERIMENT)
    row = mlflow.create_run(number, tags=tags, run_name=tags["zenml.pipeline_run"])
    mlflow.log_metric(row.info.run_id, "evaluate/psnr_fg", psnr_fg)
    mlflow.set_terminated(row.info.run_id)
    if not mlflow.search_registered_models(f"name='{name}'"):
        mlflow.create_registered_model(name)
    mlflow.create_model_version(name, f"{row.info.artifact_uri}/asset_model", run_id=row.info.run_id, tags=tags)


def delete_version(subject: str, number: int) -> None:
    """Delete a version in ZenML, as a retention policy or a person may."""
    model = Client().list_models(name=f"equals:{model_name(subject)}").items[0]
    Client().delete_model_version(Client().get_model_version(model.id, number).id)


def set_stage(subject: str, number: int, stage: str) -> None:
    """Set a stage as a person does in ZenML's dashboard."""
    model = Client().list_models(name=f"equals:{model_name(subject)}").items[0]
    Client().update_model_version(model.id, Client().get_model_version(model.id, number).id, stage=stage, force=True)


def seen_by_readers(subject: str) -> tuple[list[str], list[str]]:
    """The runs that a reader of ZenML's stage and one of MLflow's alias get; nothing is mended by it."""
    model = Client().list_models(name=f"equals:{model_name(subject)}").items[0]
    staged = Client().list_model_versions(model=model.id, stage="production", hydrate=True).items
    mlflow = rows.client()
    alias = mlflow.get_registered_model(model.name).aliases.get("production")
    tagged = [mlflow.get_model_version(model.name, alias).tags["zenml.pipeline_run"]] if alias else []
    return [str(version.run_metadata["zenml.pipeline_run"]) for version in staged], tagged
