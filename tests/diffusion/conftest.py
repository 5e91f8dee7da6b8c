"""Fixtures of the diffusion tests: the tiny model loaded, a tiny photo set, a step's runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from dreambooth3d.artifacts import BaseModelRef, SubjectPhotos
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from tests.photos.photo_sets import masked


@pytest.fixture(scope="session")
def base(tiny_base_model: Path) -> BaseModelRef:
    """The tiny model, resolved."""
    return resolve(BaseModelConfig(path=str(tiny_base_model)))


@pytest.fixture(scope="session")
def components(base: BaseModelRef) -> Components:
    """The tiny model, loaded and frozen."""
    return load_components(base, "cpu")


@pytest.fixture
def photos() -> SubjectPhotos:
    """Three photos: a dark square at different places on light backgrounds."""
    images = torch.full((3, 3, 64, 64), 0.8) + torch.arange(3).view(3, 1, 1, 1) * 0.05
    for index in range(3):
        images[index, :, 16 : 40 + 4 * index, 20:44] = torch.tensor([0.2, 0.4, 0.1]).view(3, 1, 1)
    return masked(SubjectPhotos(tuple(images), pd.DataFrame(), (), "rex", "sks", "dog", "", "untracked:0"))


@pytest.fixture
def make_runtime(tmp_path: Path) -> Callable[..., Runtime]:
    """Contexts of steps with a work folder by name."""

    def make(name: str = "finetune_dreambooth", folder: str = "step", **options: object) -> Runtime:
        return Runtime(StepLog(name), tmp_path / folder, progress=False, **options)

    return make
