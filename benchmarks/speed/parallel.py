"""Score distillation on several GPUs of one host against one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import sds
from benchmarks.speed.timing import time_steps
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.nerf.training.distillation import follow
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.parallel import Team, team


def measure(
    model: Path, config: InitNerfConfig, device: torch.device, steps: int, folder: Path, curve_steps: int
) -> dict[str, Any]:
    """Times of a configuration whose `processes` share its views, and the guidance losses of its first steps."""
    with team(_follow, (str(model), config), config.processes, device) as leader:
        guidance = sds.load_guidance(model, config, device)
        trainer = sds.make_trainer(guidance, config, device, folder, leader)
        losses = [float(trainer.train_step()["guidance_loss"]) for _ in range(curve_steps)]
        timing = time_steps(trainer.train_step, steps, device)
        leader.share(None)
    return timing.summary() | {"losses": losses, "samples_ms": timing.samples, "views": config.views_per_step}


def _follow(members: Team, model: str, config: InitNerfConfig) -> None:
    guidance = sds.load_guidance(Path(model), config, members.device)
    follow(DistillInputs(guidance, team=members), config)
