"""What the slow tests of this folder share: a product, and what an untouched run of it leaves."""

from __future__ import annotations

import pytest

from tests.resilience.kills import Untouched, untouched_run


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Untouched:
    """A workshop, and the result of a run in it that nobody touched."""
    return untouched_run(tmp_path_factory.mktemp("resilience"))
