"""A remote artifact store that fails: whatever its client raises is one sentence, and nothing half-read is taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dreambooth3d.errors import ArtifactError
from materializers.hashing import content_hash
from tests.materializers.test_round_trips import field, materializer_of
from tests.remote_folder import Remote


class ReadTimeoutError(Exception):
    """As botocore's, which is no error of the system."""


FAILURES = (
    ReadTimeoutError("Read timeout on endpoint URL"),
    ConnectionResetError(104, "Connection reset by peer"),
    OSError(16, "Please reduce your request rate. (SlowDown)"),
    PermissionError("The AWS Access Key Id you provided does not exist in our records."),
    RuntimeError("An error occurred (500) when calling the PutObject operation: InternalError"),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_store_that_fails_is_one_sentence_and_what_it_holds_stays(
    failure: Exception, remote_store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = field()
    materializer = materializer_of(value, remote_store)
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
    remote_store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = field()
    materializer = materializer_of(value, remote_store)
    materializer.save(value)
    monkeypatch.setattr(Remote, "short_reads", 1)
    assert content_hash(materializer.load(type(value))) == content_hash(value)
    assert Remote.short_reads == 0
    monkeypatch.setattr(Remote, "short_reads", 99)
    with pytest.raises(ArtifactError, match="is not what was stored"):
        materializer.load(type(value))
