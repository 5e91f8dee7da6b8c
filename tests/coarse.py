"""Searches for the cameras of photos made coarse, for tests that need that there is one, and not how well it ends.

How well it ends is for tests/photos/test_photo_cameras.py, tests/nerf/test_poses.py and tests/nerf/test_heading.py.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

COARSE = {
    "dreambooth3d.nerf.photo_cameras.poses": {"RENDER_SIZE": 16, "SAMPLES_PER_RAY": 12, "AZIMUTH_STEP_DEG": 40.0},
    "dreambooth3d.nerf.photo_cameras.heading": {"RENDER_SIZE": 16, "SAMPLES_PER_RAY": 12},
    "dreambooth3d.nerf.training.checks": {"PREVIEW_SIZE": 16},
    "dreambooth3d.photos.cameras.search": {
        "STARTS": 8,
        "OUTLINE_ROUNDS": ((2, 2, 16, 8, 3.0),),
        "FIELD_ROUNDS": ((2, 2, 2.0),),
        "HELD_OUT_STEPS": 2,
    },
}
"""Renders that are looked at on the way, small as well."""


def search_coarsely(patch: pytest.MonkeyPatch) -> None:
    """In this process."""
    for module, sizes in COARSE.items():
        for name, value in sizes.items():
            patch.setattr(importlib.import_module(module), name, value)


def write_coarse_searches(root: Path) -> None:
    """In a copy of the code."""
    for module, sizes in COARSE.items():
        file = root / f"{module.replace('.', '/')}.py"
        text = file.read_text()
        for name, value in sizes.items():
            text, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", text, flags=re.MULTILINE)
            assert count == 1, f"{file}: no line sets {name}"
        file.write_text(text)


def search_coarsely_from_now_on() -> None:
    """In this process, for good, in modules that are yet to be loaded; none is loaded for it."""
    assert not COARSE.keys() & sys.modules.keys()
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the modules of `COARSE` where they always are."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in COARSE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads a module as its own loader does, then sets its sizes."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        for name, value in COARSE[module.__name__].items():
            assert hasattr(module, name)
            setattr(module, name, value)
