"""How long MLflow is waited for: hardly while a step computes, for minutes where a run's row is completed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER,
)
from mlflow.exceptions import MlflowException

from dreambooth3d.errors import DreamBooth3DError, gist

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
BRIEF_RETRIES, BRIEF_TIMEOUT_S, CONNECTIONS = 1, 10, 3
RETRIES, TIMEOUT_S = 3, 30
"""As `environment.VARIABLES` sets them, for steps in containers, where nobody does."""
PAUSES_S = (10.0, 50.0)
# What says of a tracker only that it cannot do its work now: locked, full, overloaded, down, or login expired.
_PASSING = frozenset(
    {
        "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED", "CANCELLED", "ABORTED",
    }
)  # fmt: skip


class TrackerAwayError(DreamBooth3DError):
    """MLflow did not answer, or answered with errors, for as long as it is waited for."""


@contextmanager
def briefly() -> Iterator[None]:
    """Wait for MLflow for less than half a minute per request, for what can be said later as well."""
    with _limits(BRIEF_RETRIES, BRIEF_TIMEOUT_S), _few_words():
        yield


@contextmanager
def bounded() -> Iterator[None]:
    """Wait for MLflow for about two minutes per request, unless the user has set other limits."""
    users = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get_raw(), MLFLOW_HTTP_REQUEST_TIMEOUT.get_raw()
    with _limits(users[0] or RETRIES, users[1] or TIMEOUT_S):
        yield


@contextmanager
def _limits(retries: int | str, timeout_s: int | str) -> Iterator[None]:
    """MLflow reads its limits from the environment, at each request; a user's lower ones stay.

    How long a server asks to be left alone counts only where the user says so: it may say hours.
    """
    wanted = {MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: int(retries), MLFLOW_HTTP_REQUEST_TIMEOUT.name: int(timeout_s)}
    before = {name: os.environ.get(name) for name in (*wanted, MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.name)}
    os.environ.update({name: str(min(value, int(before[name] or value))) for name, value in wanted.items()})
    os.environ.setdefault(MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.name, "false")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _few_words() -> Iterator[None]:
    """MLflow opens a database up to ten times, over minutes, and logs each failed request with its traceback."""
    from mlflow.store.db import utils

    logs = [logging.getLogger(name) for name in (utils.__name__, "urllib3.connectionpool")]
    before, levels = utils.MAX_RETRY_COUNT, [log.level for log in logs]
    utils.MAX_RETRY_COUNT = CONNECTIONS
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        utils.MAX_RETRY_COUNT = before
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def is_away(error: BaseException) -> bool:
    """Whether an error says only that the tracker, or the store of its files, cannot do its work at present."""
    from requests.exceptions import RequestException
    from sqlalchemy.exc import OperationalError, TimeoutError

    if isinstance(error, MlflowException):
        return error.error_code in _PASSING
    return isinstance(error, RequestException | OperationalError | TimeoutError | ConnectionError)


def patiently(work: Callable[[], Result], say: str) -> Result:
    """Do work with the tracker, and again after each of `PAUSES_S` while it is away.

    Args:
        work: may be done again after any part of it was done.
        say: what waits, as the beginning of the one warning.

    Raises:
        TrackerAwayError: it was away each time; says why.
    """
    for pause in (*PAUSES_S, None):
        try:
            with bounded(), _few_words():
                return work()
        except Exception as error:
            if not is_away(error):
                raise
            if pause is None:
                raise TrackerAwayError(gist(error)) from error
            if pause == PAUSES_S[0]:
                logger.warning("%s: MLflow does not answer (%s). It is waited for.", say, gist(error))
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


class Outage:
    """One warning for each time that the tracker is away, however many requests fail."""

    def __init__(self) -> None:
        self._told = False

    def failed(self, message: str, *arguments: object) -> None:
        """Warn, unless that was done since the tracker answered last."""
        if not self._told:
            logger.warning(message, *arguments)
        self._told = True

    def answered(self) -> None:
        """The tracker is there."""
        self._told = False
