"""An artifact that is gone or damaged is made again: its step no longer counts as cached."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from zenml.client import Client
from zenml.utils.time_utils import utc_now

from dreambooth3d.errors import ArtifactError

logger = logging.getLogger(__name__)
_FILES_LIE_BELOW = 3
"""Folders between an artifact and a file in it, at most."""


@contextmanager
def recomputed_if_damaged() -> Iterator[None]:
    """Where an artifact turns out to be damaged, its step runs again the next time, and the error says so."""
    try:
        yield
    except ArtifactError as error:
        if error.uri is not None and not error.recomputed:
            places = [error.uri, error.referrer] if error.referrer else [error.uri]
            error.recomputed = bool(sum(_forget(place) for place in places))
        raise


def _forget(uri: str) -> bool:
    """Expire what the cache holds of the step that made the artifact at a URI, or that of a file in it."""
    try:
        client, found = Client(), False
        for version in _versions(client, uri):
            if version.producer_step_run_id is None:
                continue
            key = client.get_run_step(version.producer_step_run_id).cache_key
            for step in client.list_run_steps(cache_key=key, cache_expired=False, size=1000).items if key else ():
                client.update_step_run(step.id, cache_expires_at=utc_now())
                found = True
    # The damage is what is to be told, whatever hinders its repair.
    except Exception as error:
        logger.debug("The cache could not be told about %s: %s", uri, error)
        return False
    return found


def _versions(client: Client, uri: str) -> list:
    for _ in range(_FILES_LIE_BELOW):
        if versions := client.list_artifact_versions(uri=uri, size=100).items:
            return versions
        uri = uri.rpartition("/")[0]
    return []
