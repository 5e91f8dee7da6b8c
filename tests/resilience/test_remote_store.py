"""A remote artifact store that fails: whatever its client raises is one sentence, and nothing half-read is taken."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from zenml.io.filesystem import BaseFilesystem
from zenml.io.filesystem_registry import default_filesystem_registry
from zenml.io.local_filesystem import LocalFilesystem

from dreambooth3d.errors import ArtifactError
from materializers.hashing import content_hash
from tests.materializers.test_round_trips import field, materializer_of


class ReadTimeoutError(Exception):
    """As botocore's, which is no error of the system."""


FAILURES = (
    ReadTimeoutError("Read timeout on endpoint URL"),
    ConnectionResetError(104, "Connection reset by peer"),
    OSError(16, "Please reduce your request rate. (SlowDown)"),
    PermissionError("The AWS Access Key Id you provided does not exist in our records."),
    RuntimeError("An error occurred (500) when calling the PutObject operation: InternalError"),
)


class Remote(LocalFilesystem):
    """A folder as a store with addresses.

    Attributes:
        root: the folder.
        failure: what every opening of a file raises, if anything.
        short_reads: how many files still arrive without their end.
    """

    SUPPORTED_SCHEMES: ClassVar[set[str]] = {"faulty://"}
    root: ClassVar[Path] = Path()
    failure: ClassVar[Exception | None] = None
    short_reads: ClassVar[int] = 0

    @classmethod
    def _local(cls, path: Any) -> str:
        return str(path).replace("faulty:/", str(cls.root), 1)

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        if Remote.failure is not None:
            raise Remote.failure
        if "r" in mode and Remote.short_reads > 0 and str(name).endswith(".safetensors"):
            Remote.short_reads -= 1
            content = Path(Remote._local(name)).read_bytes()
            return io.BytesIO(content[: len(content) // 2])
        return LocalFilesystem.open(Remote._local(name), mode)

    @staticmethod
    def exists(path: Any) -> bool:
        return LocalFilesystem.exists(Remote._local(path))

    @staticmethod
    def isdir(path: Any) -> bool:
        return LocalFilesystem.isdir(Remote._local(path))

    @staticmethod
    def makedirs(path: Any) -> None:
        LocalFilesystem.makedirs(Remote._local(path))

    @staticmethod
    def rmtree(path: Any) -> None:
        shutil.rmtree(Remote._local(path))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """An empty store; ZenML forgets it afterwards."""
    monkeypatch.setattr(Remote, "root", tmp_path / "bucket")
    systems: dict[Any, type[BaseFilesystem]] = default_filesystem_registry._filesystems
    monkeypatch.setitem(systems, "faulty://", Remote)
    yield SimpleNamespace(path="faulty://store")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_store_that_fails_is_one_sentence_and_what_it_holds_stays(
    failure: Exception, store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = field()
    materializer = materializer_of(value, store)
    monkeypatch.setattr(Remote, "failure", failure)
    with pytest.raises(ArtifactError, match="faulty://store/artifact: this artifact could not be stored now") as raised:
        materializer.save(value)
    assert str(failure).split("]")[-1].strip().rstrip(".") in str(raised.value) and raised.value.uri is None
    assert not (Remote.root / "store" / "artifact").exists()
    monkeypatch.setattr(Remote, "failure", None)
    materializer.save(value)
    monkeypatch.setattr(Remote, "failure", failure)
    with pytest.raises(ArtifactError, match="could not be read now") as raised:
        materializer.load(type(value))
    assert raised.value.uri is None and not raised.value.recomputed, "nothing is made again for that"
    monkeypatch.setattr(Remote, "failure", None)
    assert content_hash(materializer.load(type(value))) == content_hash(value)


def test_a_connection_that_ends_early_is_tried_once_more(
    store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = field()
    materializer = materializer_of(value, store)
    materializer.save(value)
    monkeypatch.setattr(Remote, "short_reads", 1)
    assert content_hash(materializer.load(type(value))) == content_hash(value)
    assert Remote.short_reads == 0
    monkeypatch.setattr(Remote, "short_reads", 99)
    with pytest.raises(ArtifactError, match="is not what was stored"):
        materializer.load(type(value))
