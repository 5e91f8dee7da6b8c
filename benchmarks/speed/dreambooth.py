"""The step of DreamBooth at Stable Diffusion's size: ours in its plain and fast form, on random latents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.timing import time_steps
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.plan import ImageGroup, TrainingPlan
from dreambooth3d.diffusion.finetuning.precision import trained_dtype
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

SAME_STEPS = 20


def settings(**changes: Any) -> FinetuneConfig:
    """One instance and one class image per step, UNet and text encoder, bf16 autocast over float32 weights."""
    return FinetuneConfig(
        **{
            "steps": 800,
            "batch_size": 1,
            "learning_rate": 5.0e-6,
            "mixed_precision": "bf16",
            "train_text_encoder": True,
        }
        | changes
    )


def measure(model: Path, config: FinetuneConfig, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    """Times, memory and start-up of one configuration, and the losses of its first steps."""
    base = resolve(BaseModelConfig(path=str(model)))
    components = load_components(base, device, trainable=True, dtype=trained_dtype(config, device))
    generator = torch.Generator().manual_seed(0)
    groups = tuple(
        ImageGroup(name, torch.randn(8, *components.latent_shape, generator=generator).to(device), [prompt] * 8, 1, 1.0)
        for name, prompt in (("instance", "a photo of a sks dog"), ("prior", "a photo of a dog"))
    )
    runtime = Runtime(StepLog("finetune_dreambooth"), folder, device, progress=False)
    trainer = DreamBoothTrainer(components, TrainingPlan(groups, config, 0), runtime)
    trainer.networks.train()
    done = 0

    def step() -> dict[str, torch.Tensor]:
        nonlocal done
        done += 1
        return trainer.train_step(done)

    started = time.perf_counter()
    losses = [float(step()["loss"])]
    start_up = time.perf_counter() - started
    losses += [float(step()["loss"]) for _ in range(SAME_STEPS - 1)]
    timing = time_steps(step, steps, device)
    return timing.summary() | {"first_step_s": start_up, "losses": losses, "samples_ms": timing.samples}
