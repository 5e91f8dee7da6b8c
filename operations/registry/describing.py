"""What MLflow's registry shows of a version: where it comes from, its figures, and since when it is production.

All of this is for people. Nothing is decided by it, and a registry that does not take it ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mlflow.tracking import MlflowClient

from dreambooth3d.errors import gist
from dreambooth3d.naming import model_name
from operations.records import note, rows
from operations.records.keys import current
from operations.records.patience import briefly
from operations.registry.versions import ALIAS, Change, Registered

logger = logging.getLogger(__name__)
STAGE, SINCE, WHO, REASON = "stage", "stage.since", "stage.by", "stage.reason"
_TAG_LENGTH = 1000


def description(run: str, row: str, metrics: Mapping[str, float], shown: bool) -> str:
    """Of a version, as Markdown.

    Args:
        run: name of the pipeline run that made it.
        row: id of the run's row.
        metrics: of the row.
        shown: whether the row holds the asset's picture.
    """
    lines = [note.picture(row) if shown else "", note.plain(", ".join(note.figures(metrics)))]
    lines.append(f"Made by `{run}`. The field renders any view: `predict` takes azimuths and elevations in degrees.")
    return "\n\n".join(line for line in lines if line)


def describe_version(client: MlflowClient, subject: str, version: str, text: str) -> None:
    """Describe a version that was registered now, and, where nobody has, its model."""
    name = model_name(subject)
    client.update_model_version(name, version, text)
    if not client.get_registered_model(name).description:
        about = f"Assets of {note.plain(subject)}. The alias `{ALIAS}` is the one in production; it changes by "
        client.update_registered_model(name, f"{about}`dreambooth3d production promote RUN`.")


def tell_change(registered: Registered, change: Change) -> None:
    """Note with both versions of a change of production since when they are what they are, and why.

    Args:
        registered: the subject's registries before it.
        change: that was made.
    """
    try:
        with briefly():
            _tell(registered, change)
    except Exception as error:  # the change is made; whatever the tracker raises, it stays so
        logger.warning("%s: MLflow did not take the tags of the change (%s).", registered.subject, gist(error))


def _tell(registered: Registered, change: Change) -> None:
    client, name = rows.client(), model_name(registered.subject)
    stages = {change.target: "production", change.origin: "archived"}
    for number, stage in stages.items():
        version = registered.mlflow_version(number)
        if version is None:
            continue
        tags = {STAGE: stage, SINCE: change.time, WHO: change.who, REASON: change.reason[:_TAG_LENGTH]}
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        if not (entry := client.get_model_version(name, version)).description and entry.run_id:
            row = client.get_run(entry.run_id)
            run = registered.run_of(number)
            describe_version(
                client, registered.subject, version, description(run, entry.run_id, current(row.data.metrics), False)
            )
