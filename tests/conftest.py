"""Fixtures that several test folders share."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_models import write_tiny_base_model

LONGEST_FIRST = (
    "tests/benchmarks/test_stages.py", "tests/pipelines/test_failures.py", "tests/pipelines/test_end_to_end.py",
    "tests/pipelines/test_promotion.py", "tests/pipelines/test_generation.py", "tests/nerf/test_poses.py",
    "tests/photos/test_photo_cameras.py", "tests/nerf/test_distillation.py", "tests/pipelines/test_contexts.py",
    "tests/benchmarks/test_family.py", "tests/test_sources.py", "tests/photos/test_strangers.py",
)  # fmt: skip
"""Files that take minutes: begun last, one of them would keep one worker busy alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the order within a file stays as it is."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.nodeid.split("::")[0], len(order)))


@pytest.fixture(scope="session")
def tiny_base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight model folder in Stable Diffusion's layout; read it, do not change it."""
    return write_tiny_base_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def work_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep resumable states and caches of a test out of the repository."""
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "work"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, bool | None, bool | None]:
    """A command silences logging for the rest of its process, which here is that of the tests after it.

    A hook around the fixtures of every scope: one of a module can call a command too.
    """
    level, verbosity = logging.getLogger().level, os.environ.get("ZENML_LOGGING_VERBOSITY")
    try:
        return (yield)
    finally:
        logging.getLogger().setLevel(level)
        os.environ.pop("ZENML_LOGGING_VERBOSITY", None)
        if verbosity is not None:
            os.environ["ZENML_LOGGING_VERBOSITY"] = verbosity


@pytest.fixture(autouse=True)
def _skip_without_gpu(request: pytest.FixtureRequest) -> None:
    """Tests marked `gpu` need CUDA; Triton's interpreter, where it stands in for one, says so by itself."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available() and not interpreted:
        pytest.skip("needs CUDA")


@pytest.fixture
def remote_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An empty artifact store with addresses, in a folder; ZenML forgets it afterwards."""
    from zenml.io.filesystem_registry import default_filesystem_registry

    from tests.remote_folder import Remote

    monkeypatch.setattr(Remote, "root", tmp_path / "bucket")
    monkeypatch.setitem(default_filesystem_registry._filesystems, "faulty://", Remote)
    names = ("open", "exists", "listdir", "makedirs", "remove", "rmtree")
    return SimpleNamespace(path="faulty://store", **{name: getattr(Remote, name) for name in names})
