"""The token for pushing to a hub, from a ZenML secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from zenml.client import Client

from dreambooth3d.cli.pushing import _token
from dreambooth3d.errors import ConfigError


def test_a_secret_of_zenml_s_holds_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "another")
    Client().create_secret("hub", {"token": "of the secret"})
    Client().create_secret("empty", {"key": "value"})
    assert _token("hub") == "of the secret" and _token(None) == "another"
    with pytest.raises(ConfigError, match="there is no ZenML secret 'none'. Make it with `zenml secret create none"):
        _token("none")
    with pytest.raises(ConfigError, match="the ZenML secret 'empty' has no 'token'"):
        _token("empty")
