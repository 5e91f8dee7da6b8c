"""A lock per subject that holds between threads, processes and machines, kept in ZenML's database.

The lock is a ZenML model of a fixed name: the database lets only one of that name exist, so creating it either succeeds
or fails, whoever else tries. Its description says who holds it and until when. The holder renews it in the background;
a holder that died stops renewing, and the next one who asks deletes the lock by its id (never by its name, which could
by then be another's) and tries to create its own.

Expiry compares clocks of two machines: they may differ by `CLOCK_SKEW_S`. A holder does not rely on that alone: `check`
asks the database whether the lock is still there, and is to be called before every write that the lock protects.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

from zenml.client import Client
from zenml.exceptions import EntityExistsError
from zenml.models import ModelResponse

from dreambooth3d.errors import LockError
from dreambooth3d.naming import model_name

LEASE_S = 60.0
RENEW_S = 20.0
CLOCK_SKEW_S = 10.0
POLL_S = 0.2

_logger = logging.getLogger(__name__)
_own = threading.local()


def who() -> str:
    """Who acts, for records: ZenML's user and the host."""
    return f"{Client().active_user.name} on {socket.gethostname()}"


class Lock:
    """A held lock.

    Attributes:
        subject: whose production version it protects.
    """

    def __init__(self, subject: str) -> None:
        """Nothing is taken yet."""
        self.subject = subject
        self._name = f"lock.{model_name(subject)}"
        self._token = uuid4().hex
        self._id = UUID(int=0)
        self._valid_until = 0.0
        self._stop = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name=self._name, daemon=True)

    def check(self) -> None:
        """Make sure that the lock is still this one's.

        Raises:
            LockError: it is not.
        """
        held = _find(self._name) if time.monotonic() < self._valid_until else None
        if held is None or _note(held).get("token") != self._token:
            raise self._lost()

    def acquire(self, wait_s: float) -> None:
        """Take the lock, and from then on renew it.

        Raises:
            LockError: another still held it after `wait_s` seconds.
        """
        deadline = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() >= deadline:
                held = _find(self._name)
                holder = _note(held).get("owner", "another process") if held else "another process"
                raise LockError(
                    f"{self.subject}: its production version is being changed by {holder}, also after {wait_s:.0f} s. "
                    "Run the command again later."
                )
            time.sleep(POLL_S)
        self._renewing.start()

    def release(self) -> None:
        """Give the lock back.

        Raises:
            LockError: it was lost in the meantime.
        """
        self._stop.set()
        self._renewing.join()
        try:
            Client().delete_model(self._id)
        except KeyError:
            # Within the lease nobody else deletes it: it was deleted by a request whose answer was lost.
            if time.monotonic() >= self._valid_until:
                raise self._lost() from None
        except Exception as error:
            # What it protected is done, and it ends by itself.
            _logger.warning("%s: not given back (%s), it ends in %.0f s.", self._name, error, LEASE_S)

    def _try(self) -> bool:
        start = time.monotonic()
        try:
            self._id = Client().create_model(self._name, description=self._describe()).id
        except EntityExistsError:
            held = _find(self._name)
            if held is None:
                return False
            # A request whose answer was lost is asked again, and then meets its own lock.
            if _note(held).get("token") != self._token:
                if time.time() <= _note(held).get("expires", 0.0) + CLOCK_SKEW_S:
                    return False
                _delete(held.id)
                return self._try()
            self._id = held.id
        self._valid_until = start + LEASE_S
        return True

    def _describe(self) -> str:
        return json.dumps({"owner": who(), "token": self._token, "expires": time.time() + LEASE_S})

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            start = time.monotonic()
            try:
                Client().update_model(self._id, description=self._describe())
                self._valid_until = start + LEASE_S
            except KeyError:
                self._valid_until = 0.0
                return
            except Exception as error:
                # The next try may reach the server.
                _logger.debug("%s: not renewed (%s)", self._name, error)

    def _lost(self) -> LockError:
        return LockError(
            f"{self.subject}: the lock on its production version was lost to another process, because this one did not "
            f"renew it for {LEASE_S:.0f} s. Run the command again."
        )


@contextmanager
def exclusive(subject: str, wait_s: float | None = None) -> Iterator[Lock]:
    """Let nobody else change which version of a subject is production; within one thread it may be nested.

    Args:
        subject: whose production version.
        wait_s: seconds to wait for another holder; the default outlasts the lease of a dead one.

    Raises:
        LockError: another holds it, or took it over because this process did not renew it.
    """
    held: dict[str, Lock] = _own.__dict__.setdefault("locks", {})
    if subject in held:
        yield held[subject]
        return
    lock = Lock(subject)
    lock.acquire(2 * LEASE_S if wait_s is None else wait_s)
    held[subject] = lock
    try:
        yield lock
    except BaseException:
        del held[subject]
        # What went wrong inside says more than that the lock could not be given back, too.
        with suppress(Exception):
            lock.release()
        raise
    del held[subject]
    lock.release()


def _find(name: str) -> ModelResponse | None:
    # get_model would also take a name that only begins like this one.
    found = Client().list_models(name=f"equals:{name}", hydrate=True).items
    return found[0] if found else None


def _note(held: ModelResponse) -> dict[str, Any]:
    """What the holder wrote; nothing where a model of this name was not made here."""
    try:
        note = json.loads(held.description or "")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _delete(lock: UUID) -> None:
    with suppress(KeyError):  # someone else was faster
        Client().delete_model(lock)
