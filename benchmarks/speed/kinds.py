"""The step of score distillation of each kind of asset at Stable Diffusion's size: how long, and how much memory.

A field has settled in its occupancy before it is timed; Gaussians are as many as they become.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.plan import ROOT
from benchmarks.speed import sds
from benchmarks.speed.timing import time_steps
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.config.photo_targets import InitPhotoTargetsConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.gaussians.gaussians import Gaussians
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.training.trainer import Trainer
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from operations.launch.checking import check_file

PRESET = ROOT / "configs" / "sd15_dog.yaml"
RASTERISED_SIZE = 512
"""Pixels per side of a mesh's and of Gaussians' renders: as many as guidance sees."""
MESH_RESOLUTION = 96
"""Cubes per side of the grid."""
GAUSSIANS = 100_000
SETTLED = {"field": sds.SETTLED, "mesh": 20, "gaussians": 20}
"""Steps before those that are timed."""
SMALL = {"size": 16, "samples_per_ray": 16, "occupancy_resolution": 16}


def stage(kind: str, small: bool = False) -> InitNerfConfig:
    """The first stage of `configs/sd15_dog.yaml` as a kind of asset, by distillation alone.

    Args:
        kind: field, mesh or gaussians.
        small: so few pixels that a CPU can show that it runs.
    """
    preset = check_file(str(PRESET))
    assert isinstance(preset, TrainingConfig)
    given = preset.init_nerf
    render = given.render.model_dump()
    if kind != "field":
        render["size"] = RASTERISED_SIZE
    names = set(TextureConfig.model_fields)
    texture = TextureConfig(**{name: value for name, value in given.field.model_dump().items() if name in names})
    counts = {"count": 60, "max_count": 60} if small else {"count": GAUSSIANS, "max_count": GAUSSIANS}
    return given.model_copy(
        update={
            "representation": kind,
            "render": RenderConfig.model_validate(render | (SMALL if small else {})),
            "mesh": MeshConfig(resolution=8 if small else MESH_RESOLUTION, texture=texture),
            "gaussians": GaussiansConfig.model_validate(counts | {"densify_every": 0}),
            "photos": InitPhotoTargetsConfig(weight=0),
        }
    )


def measure(model: Path, config: InitNerfConfig, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    """Times and memory of one kind, and how large it is."""
    trainer = sds.make_trainer(sds.load_guidance(model, config, device), config, device, folder)
    started = time.perf_counter()
    losses = [float(trainer.train_step()["guidance_loss"])]
    start_up = time.perf_counter() - started
    while trainer.step < (SETTLED[config.representation] if device.type == "cuda" else 2):
        losses.append(float(trainer.train_step()["guidance_loss"]))
    timing = time_steps(trainer.train_step, steps, device)
    return timing.summary() | {
        "first_step_s": start_up,
        "losses": losses,
        "samples_ms": timing.samples,
        "size": config.render.size,
        "what": described(trainer),
    }


def described(trainer: Trainer) -> str:
    """What the asset consists of now."""
    asset, figures = trainer.asset, trainer.asset.figures()
    if isinstance(asset, Gaussians):
        return f"{len(asset):,} Gaussians, {asset.rasterizer}"
    if isinstance(asset, SurfaceMesh):
        return f"{figures['triangles']:,.0f} triangles"
    assert isinstance(asset, Field)
    return f"{figures['occupied_share']:.0%} of {asset.occupancy.resolution}^3 cells occupied"
