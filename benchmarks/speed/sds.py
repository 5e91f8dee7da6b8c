"""The step of score distillation at Stable Diffusion's size: how long, how much memory, where, and is it the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.timing import Stopwatch, time_steps
from dreambooth3d.config.base import Acceleration
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.guidance import GuidanceConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.config.photo_targets import InitPhotoTargetsConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.nerf.field import radiance_field
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.trainer import Trainer
from dreambooth3d.parallel import Team
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

PROMPT = "a photo of a sks dog"
FIELD = {"encoding": "hash_grid", "levels": 16, "log2_table_size": 19, "base_resolution": 16, "level_scale": 1.447}
"""As in threestudio's dreamfusion-sd: 16 levels of 2^19 entries from 16 to 4096 cells per side."""
SAME_STEPS = 30
SETTLED = 120
"""Steps after which the field no longer counts as occupied everywhere, as in nearly all of a training."""


def stage(
    *, size: int = 64, views: int = 1, samples: int = 512, acceleration: Acceleration = "compile", processes: int = 1
) -> InitNerfConfig:
    """Distillation alone, without photos; guards look between steps only."""
    return InitNerfConfig(
        steps=10_000,
        views_per_step=views,
        processes=processes,
        field=FieldConfig(**FIELD),
        render=RenderConfig(size=size, samples_per_ray=samples, occupancy_resolution=64),
        guidance=GuidanceConfig(guidance_scale=(100.0, 100.0), acceleration=acceleration),
        photos=InitPhotoTargetsConfig(weight=0),
    )


def make_trainer(
    guidance: ScoreDistillation, config: InitNerfConfig, device: torch.device, folder: Path, members: Team | None = None
) -> Trainer:
    """One attempt at the stage."""
    runtime = Runtime(StepLog("init_nerf"), folder, device, progress=False)
    return Trainer(DistillInputs(guidance, team=members or Team(device=device)), config, 0, runtime)


def load_guidance(model: Path, config: InitNerfConfig, device: torch.device) -> ScoreDistillation:
    """Guidance by the model as it is."""
    base = resolve(BaseModelConfig(path=str(model)))
    components = load_components(base, device, acceleration=config.guidance.acceleration)
    guidance = ScoreDistillation(components, PROMPT, config.guidance, 0)
    components.set_aside()
    return guidance


def measure(model: Path, config: InitNerfConfig, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    """Times, memory and start-up of one configuration, and the losses of its first steps."""
    guidance = load_guidance(model, config, device)
    trainer = make_trainer(guidance, config, device, folder)
    started = time.perf_counter()
    first = trainer.train_step()
    losses = [float(first["guidance_loss"])]
    start_up = time.perf_counter() - started
    losses += [float(trainer.train_step()["guidance_loss"]) for _ in range(SAME_STEPS - 1)]
    while trainer.step < SETTLED and device.type == "cuda":
        trainer.train_step()
    timing = time_steps(trainer.train_step, steps, device)
    field = trainer.asset
    assert isinstance(field, radiance_field.Field)
    result = timing.summary() | {
        "first_step_s": start_up,
        "losses": losses,
        "samples_ms": timing.samples,
        "implementation": type(field.encoding).__name__,
        "sampler": type(field.sampler).__name__,
        "evaluated_samples": float(trainer.train_step()["evaluated_samples"]),
    }
    result["profile"] = profile(trainer, device, min(steps, 50))
    return result


def profile(trainer: Trainer, device: torch.device, steps: int) -> dict[str, float]:
    """Mean milliseconds of each part of a step."""
    watch = Stopwatch(device)
    with _marks(trainer, watch):
        for _ in range(steps):
            watch.begin()
            trainer.train_step()
            watch.mark("Adam")
    return watch.means()


@contextmanager
def _marks(trainer: Trainer, watch: Stopwatch) -> Iterator[None]:
    """Let the parts of a step report to the watch."""
    guidance, render = trainer.guidance, radiance_field.render_cameras
    components = guidance.components
    encode, gradient, summed = components.encode_images, guidance._gradients, trainer.team.sum_gradients

    def rendered(*given: Any, **options: Any) -> Any:
        watch.mark("cameras, occupancy")
        result = render(*given, **options)
        result.images.register_hook(lambda _: watch.mark("backward: encoder"))
        watch.mark("render")
        return result

    def encoded(images: torch.Tensor) -> torch.Tensor:
        result = encode(images)
        watch.mark("encode")
        return result

    def judged(*given: Any) -> Any:
        result = gradient(*given)
        watch.mark("UNet")
        return result

    class Reporting:
        """A team that reports when its gradients are there."""

        def __getattr__(self, name: str) -> Any:
            return getattr(team, name)

        def sum_gradients(self, parameters: Any) -> None:
            watch.mark("backward: render")
            summed(parameters)

    team = trainer.team
    radiance_field.render_cameras, components.encode_images, guidance._gradients = rendered, encoded, judged
    trainer.team = Reporting()
    try:
        yield
    finally:
        radiance_field.render_cameras, trainer.team = render, team
        del components.encode_images, guidance._gradients
