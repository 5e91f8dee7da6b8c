"""A coarse mesh steers where a field is solid, measured by trimesh's own test of what is inside."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from pydantic import ValidationError
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.config.distillation import InitNerfConfig, RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.sketch import SketchConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.kinds import load_representation
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.sketch import STEP, Sketch, sketch_of
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.surface.files import read_mesh

CHAIR = "configs/sketches/chair.obj"
SOLID = math.log(2) / STEP
"""Density at which the loss takes a field for half opaque."""


class Silence(Guidance):
    """Wants nothing."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        return GuidanceLoss(0 * images.sum())


def parts() -> list[trimesh.Trimesh]:
    """The sketch's boxes, as each of which trimesh knows its inside."""
    mesh = read_mesh(CHAIR)
    mesh.merge_vertices()
    return list(mesh.split(only_watertight=True))


def inside(points: Tensor) -> Tensor:
    found = [torch.from_numpy(part.contains(points.numpy().astype(np.float64))) for part in parts()]
    assert len(found) == 6
    return torch.stack(found).any(dim=0)


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Field:
    config = InitNerfConfig(
        steps=80, views_per_step=1, render=RenderConfig(size=8, samples_per_ray=16), check_every=80,
        field=FieldConfig(encoding="dense", volume_resolution=40), collapse_retries=0,
        regularizers=RegularizerConfig(sparsity=0, opacity=0), sketch=SketchConfig(file=CHAIR, leniency=0.02),
    )  # fmt: skip
    runtime = Runtime(StepLog("init_nerf"), tmp_path_factory.mktemp("sketch"), progress=False)
    made = distil(DistillInputs(Silence()), config, 0, runtime)
    assert made.record.series.query("name == 'sketch'")["value"].iloc[-1] < 0.05
    return load_representation(made)


def test_the_loss_alone_makes_a_field_fill_the_sketch(shaped: Field) -> None:
    points = 2 * torch.rand(20000, 3, generator=torch.Generator().manual_seed(1)) - 1
    wanted, found = inside(points), shaped.density(points).detach() > SOLID
    fresh = Field(FieldConfig(encoding="dense", volume_resolution=40)).density(points).detach() > SOLID
    overlap = (wanted & found).sum() / (wanted | found).sum()
    before = (wanted & fresh).sum() / (wanted | fresh).sum()
    assert 0.01 < wanted.float().mean() < 0.1 and before < 0.35
    assert overlap > 0.7


def test_signed_distances_are_those_of_trimesh() -> None:
    sketch = Sketch(SketchConfig(file=CHAIR), "cpu")
    points = 1.6 * torch.rand(300, 3, generator=torch.Generator().manual_seed(2)) - 0.8
    signed = sketch.signed_distance(points)
    clear = signed.abs() > 0.05
    assert torch.equal((signed < 0)[clear], inside(points)[clear])
    outside = clear & ~inside(points)
    boxes = torch.tensor(np.array([part.bounds for part in parts()]), dtype=torch.float32)
    beyond = torch.maximum(boxes[:, :1] - points, points - boxes[:, 1:]).clamp(min=0)  # (boxes, points, 3)
    nearest = beyond.norm(dim=-1).amin(dim=0)
    torch.testing.assert_close(signed[outside], nearest[outside], atol=0.03, rtol=0)


def test_it_is_lenient_near_the_surface_and_strict_far_from_it() -> None:
    """A field that is nowhere: only points inside cost, and those near the surface less the more lenient it is."""
    empty = Field(FieldConfig(encoding="dense", volume_resolution=8, blob_density=-40.0))
    with torch.no_grad():
        empty.encoding.levels[0][:, 0] -= 10
    points = torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]])
    middle = torch.tensor(np.mean([part.centroid for part in parts()[:1]], axis=0), dtype=torch.float32)[None]
    losses = [
        Sketch(SketchConfig(file=CHAIR, leniency=leniency), "cpu").loss(empty, middle).item()
        for leniency in (0.01, 0.05, 0.5)
    ]
    assert losses[0] > losses[1] > losses[2] > 0
    assert Sketch(SketchConfig(file=CHAIR), "cpu").loss(empty, points[1:]).item() < 1e-4


def test_bad_sketches_are_refused(tmp_path: Path) -> None:
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]).export(tmp_path / "sheet.ply")
    with pytest.raises(ConfigError, match="has no inside"):
        Sketch(SketchConfig(file=str(tmp_path / "sheet.ply")), "cpu")
    with pytest.raises(ValidationError, match="steers a field, and representation is mesh"):
        InitNerfConfig(representation="mesh", sketch=SketchConfig(file=CHAIR))
    with pytest.raises(ValidationError, match="face_front=false"):
        InitNerfConfig(face_front=True, sketch=SketchConfig(file=CHAIR))
    assert sketch_of(SketchConfig(), "cpu") is None and sketch_of(SketchConfig(file=CHAIR, weight=0), "cpu") is None
