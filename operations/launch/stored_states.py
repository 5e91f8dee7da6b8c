"""What an unfinished step goes on from on another machine: its work folder, kept in a remote artifact store as well.

Where the store is a folder of this machine, it is no safer than the work folder, and nothing is copied.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zenml.artifact_stores import BaseArtifactStore

from dreambooth3d.digests import sha256_file
from dreambooth3d.errors import gist
from dreambooth3d.naming import below, inner_name
from materializers.files import copy_file, is_remote, join

logger = logging.getLogger(__name__)
FOLDER = "dreambooth3d_states"
LIST = "files.json"
INTERVAL_S, COPYING_SHARE = 300.0, 20
"""Seconds between two copies at least, and how many times as long as copying takes: a twentieth of the time at most."""


@dataclass(frozen=True)
class StoredState:
    """A copy that lies in the store.

    Attributes:
        place: its URI.
        note: which run and step have made it.
    """

    place: str
    note: Mapping[str, Any]


class TravellingFolder:
    """The copy of one step's work folder. A store that fails costs a warning: it only guards what is being computed.

    Files are named by their SHA-256, and a list at the end says which they are, so that whatever is cut off leaves the
    copy of before.

    Args:
        folder: the work folder, of the same name on every machine.
        store: of the active stack.
        note: which run and step use it.
    """

    def __init__(self, folder: Path, store: BaseArtifactStore, note: Mapping[str, Any]) -> None:
        self._folder, self._store, self._note = folder, store, dict(note)
        self._place = join(store.path, FOLDER, folder.name) if is_remote(store.path) else None
        self._known: dict[tuple[str, int, int], str] = {}
        self._copied: dict[str, str] = {}
        self._last, self._took, self._warned = time.monotonic(), 0.0, False

    def fetch(self) -> None:
        """Bring the folder here, if another machine has kept one and this one has none."""
        if self._place is None or _files(self._folder):
            return
        partial = self._folder.with_name(f".{self._folder.name}.{os.getpid()}.partial")
        try:
            found = _read_list(self._store, self._place)
            if found is None:
                return
            for name, sha256 in found["files"].items():
                target = below(partial, inner_name(name))
                copy_file(join(self._place, sha256), str(target))
                if sha256_file(target) != sha256:
                    raise ValueError(f"{name} is not what was kept (another SHA-256)")
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            partial.replace(self._folder)
            logger.info("%s: goes on from what run %s has kept.", self._folder.name, found["note"].get("run"))
        # Each store raises errors of its own, and damaged content others.
        except Exception as error:
            logger.warning(
                "%s: what another machine has kept of this step could not be read (%s). The step starts from its "
                "beginning.", self._place, gist(error),
            )  # fmt: skip
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def keep(self, now: bool = False) -> None:
        """Copy what has changed, if the last copy is long enough ago.

        Args:
            now: however short ago that was.
        """
        wait = max(INTERVAL_S, COPYING_SHARE * self._took)
        if self._place is None or (not now and time.monotonic() - self._last < wait):
            return
        started = time.monotonic()
        try:
            self._copy(self._place)
        except Exception as error:  # each store raises errors of its own
            if not self._warned:
                logger.warning(
                    "%s: the artifact store does not take this step's state (%s). The step goes on; if its machine is "
                    "lost, it starts from its beginning.", self._place, gist(error),
                )  # fmt: skip
            self._warned = True
        self._last = time.monotonic()
        self._took = self._last - started

    def _copy(self, place: str) -> None:
        files = {name: self._digest(path) for name, path in _files(self._folder).items()}
        if files == self._copied:
            return
        for name, sha256 in files.items():
            if sha256 not in self._copied.values():
                copy_file(str(self._folder / name), join(place, sha256))
        with self._store.open(join(place, LIST), "w") as file:
            file.write(json.dumps({"files": files, "note": self._note}))
        self._copied = files
        for name in self._store.listdir(place):
            if str(name) not in {*files.values(), LIST}:
                self._store.remove(join(place, str(name)))

    def _digest(self, path: Path) -> str:
        """Of one file, computed once while it stays what it is."""
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns)
        if key not in self._known:
            self._known[key] = sha256_file(path)
        return self._known[key]

    def forget(self) -> None:
        """Remove the copy: the step's result is stored."""
        if self._place is not None:
            with suppress(Exception):  # `runs clean` removes it
                remove_state(self._store, self._place)


def stored_states(store: BaseArtifactStore) -> Iterator[StoredState]:
    """All copies in a store."""
    root = join(store.path, FOLDER)
    if not is_remote(store.path) or not store.exists(root):
        return
    for name in sorted(map(str, store.listdir(root))):
        found = _read_list(store, join(root, name)) or {"note": {}}
        yield StoredState(join(root, name), found["note"])


def remove_state(store: BaseArtifactStore, place: str) -> None:
    """Remove one copy, if it is there."""
    if store.exists(place):
        store.rmtree(place)


def _read_list(store: BaseArtifactStore, place: str) -> dict[str, Any] | None:
    """The list of a copy; None where there is none."""
    if not store.exists(join(place, LIST)):
        return None
    with store.open(join(place, LIST), "r") as file:
        return json.loads(file.read())


def _files(folder: Path) -> dict[str, Path]:
    """The finished files of a folder by their names."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((".partial", ".damaged"))
    }
