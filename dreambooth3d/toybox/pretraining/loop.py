"""The training loop that all stages share: one-cycle schedule, clipping, moving average, resumable state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import trange

from dreambooth3d.context import ResumePoint, optimizer_state, restore_optimizer

_CALIBRATION_STEPS = 100


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak of the one-cycle schedule.
        minutes: shorten the schedule after the first steps so that the stage ends in this time; None keeps `steps`.
        ema: weight of a new value in the moving average of the weights.
        weight_decay: AdamW's.
    """

    steps: int
    learning_rate: float
    minutes: float | None = None
    ema: float = 2e-3
    weight_decay: float = 1e-2


def one_cycle(progress: float, warmup: float = 0.04, floor: float = 0.01) -> float:
    """Learning-rate factor at `progress` in [0, 1]: linear warm-up, then a cosine down to `floor`."""
    if progress < warmup:
        return max(progress / warmup, floor)
    cosine = 0.5 * (1 + torch.cos(torch.tensor((progress - warmup) / (1 - warmup) * torch.pi)).item())
    return floor + (1 - floor) * cosine


class Trainer:
    """Trains `modules` by a loss function; afterwards their weights are the moving average."""

    def __init__(self, modules: list[torch.nn.Module], schedule: Schedule, work: Path, name: str) -> None:
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.schedule, self.name = schedule, name
        decayed = [parameter for parameter in self.parameters if parameter.ndim > 1]
        plain = [parameter for parameter in self.parameters if parameter.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            betas=(0.9, 0.98),
            fused=self.parameters[0].is_cuda,
        )
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.resume = ResumePoint(work / name, interval_s=60.0)
        self.start, self.total = 0, schedule.steps
        self._restore()

    def _restore(self) -> None:
        state = self.resume.load()
        if state is None:
            return
        self.start, self.total = state["step"], state["total"]
        for index, parameter in enumerate(self.parameters):
            parameter.data.copy_(state["parameters"][str(index)])
            self.average[index].copy_(state["average"][str(index)])
        restore_optimizer(self.optimizer, state["optimizer"])

    def _save(self, step: int) -> None:
        numbered = {str(index): parameter for index, parameter in enumerate(self.parameters)}
        average = {str(index): parameter for index, parameter in enumerate(self.average)}
        state = {"step": step, "total": self.total, "parameters": numbered, "average": average}
        self.resume.save({**state, "optimizer": optimizer_state(self.optimizer)})

    def _fit_budget(self, step: int, started: float) -> None:
        """Shorten the schedule once the speed is known."""
        if self.schedule.minutes is None or step - self.start != 2 * _CALIBRATION_STEPS:
            return
        elapsed = time.monotonic() - started
        per_step = elapsed / _CALIBRATION_STEPS
        affordable = step + int((self.schedule.minutes * 60 - 2 * elapsed) / per_step)
        self.total = min(self.total, max(affordable, step + 1))
        print(f"{self.name}: {per_step * 1e3:.1f} ms a step, {self.total} steps", flush=True)

    def run(self, loss_of: Callable[[int, float], Tensor], report_every: int = 1000) -> None:
        """Train; `loss_of(step, progress)` returns the loss of a fresh batch."""
        started = time.monotonic()
        step = self.start
        bar = trange(self.total, initial=step, desc=self.name, mininterval=20)
        while step < self.total:
            if step - self.start == _CALIBRATION_STEPS:
                started = time.monotonic()  # compilation is behind us
            progress = step / self.total
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.learning_rate * one_cycle(progress)
            loss = loss_of(step, progress)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            # A young average follows closely, so that the random start is forgotten.
            weight = max(self.schedule.ema, 1.0 / (step + 1))
            torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], weight)
            step += 1
            bar.update()
            self._fit_budget(step, started)
            if step % report_every == 0:
                print(f"{self.name}: step {step}/{self.total} loss {loss.item():.4f}", flush=True)
            if self.resume.due():
                self._save(step)
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.data.copy_(average)
        self.resume.clear()
