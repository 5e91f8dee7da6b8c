"""A training by several processes, each with a model of its own on a GPU of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dreambooth3d.artifacts import BaseModelRef, DreamBoothCheckpoint
from dreambooth3d.diffusion.finetuning.plan import TrainingPlan, TrainingResult
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer, OnCheckpoint, no_samples
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.parallel import Team, team
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime


@dataclass(frozen=True)
class SharedTraining:
    """What the other processes of a training need to know; it can be pickled.

    Attributes:
        base: the base model.
        checkpoint: whose weights it starts with, None for the base model's own.
        dtype: of the loaded networks.
        plan: with latents on the CPU.
        name: of the step that trains.
        folder: its work folder.
    """

    base: BaseModelRef
    checkpoint: DreamBoothCheckpoint | None
    dtype: torch.dtype
    plan: TrainingPlan
    name: str
    folder: Path


def train(
    components: Components, plan: TrainingPlan, runtime: Runtime, on_checkpoint: OnCheckpoint = no_samples
) -> TrainingResult:
    """Train, alone or with as many other processes as `plan.config.processes` asks for.

    Raises:
        DreamBooth3DError: training diverged, or one of the other processes failed.
    """
    processes = plan.config.processes
    portable = plan.to("cpu") if processes > 1 else plan
    shared = SharedTraining(
        components.base, components.checkpoint, components.dtype, portable, runtime.log.name, runtime.folder
    )
    with team(help_training, (shared,), processes, runtime.device) as members:
        return DreamBoothTrainer(components, plan, runtime, on_checkpoint, members).run()


def help_training(members: Team, shared: SharedTraining) -> None:
    """What the other processes of a training do."""
    device = members.device
    components = load_components(shared.base, device, shared.checkpoint, trainable=True, dtype=shared.dtype)
    runtime = Runtime(StepLog(shared.name), shared.folder, device, progress=False)
    DreamBoothTrainer(components, shared.plan.to(device), runtime, team=members).run()
