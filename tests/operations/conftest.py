"""A ZenML and MLflow of their own in this process, so that the tests can look at and change single entries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreambooth3d.environment import ACTIVE, HOME, SETTINGS
from tests.product import ROOT


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with all state; ZenML's active stack is the one that `dreambooth3d setup` registers."""
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration
    from zenml.utils import source_utils

    from dreambooth3d.cli.setup import register_stack

    folder = tmp_path_factory.mktemp("operations")
    before = dict(os.environ)
    os.environ.update({name: value.format(root=folder) for name, value in SETTINGS.items()})
    os.environ.update({HOME: str(folder), ACTIVE: str(folder)})
    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    register_stack(folder)
    # The stack was activated by another client, which this process' own one has not seen.
    Client._reset_instance()
    source_utils.set_custom_source_root(str(ROOT))
    yield folder
    source_utils.set_custom_source_root(None)
    os.environ.clear()
    os.environ.update(before)
    GlobalConfiguration._reset_instance()
    Client._reset_instance()


@pytest.fixture
def lines() -> list[str]:
    """What a command says: pass `lines.append`."""
    return []
