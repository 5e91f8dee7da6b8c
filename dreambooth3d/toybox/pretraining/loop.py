"""The training loop that all stages share: one-cycle schedule, clipping, moving average, resumable state."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm, trange

from dreambooth3d.runtime import ResumePoint, optimizer_state, restore_optimizer

_CALIBRATION_STEPS = 100
_WARMUP_STEPS = 3
_AVERAGE_EVERY = 10


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak of the one-cycle schedule.
        minutes: shorten the schedule after the first steps so that the stage ends in this time; None keeps `steps`.
        ema: weight of a new value in the moving average of the weights.
        weight_decay: AdamW's.
        compiled: let torch.compile fuse the modules, on CUDA.
        graphed: replay the whole step as one CUDA graph; small models are bound by launches otherwise.
    """

    steps: int
    learning_rate: float
    minutes: float | None = None
    ema: float = 2e-3
    weight_decay: float = 1e-2
    compiled: bool = True
    graphed: bool = True


@dataclass(frozen=True)
class StageRun:
    """How and where one stage trains.

    Attributes:
        schedule: how long and how fast.
        work: folder for the resumable state.
        device: where the modules live.
    """

    schedule: Schedule
    work: Path
    device: torch.device


def one_cycle(progress: float, warmup: float = 0.04, floor: float = 0.01) -> float:
    """Learning-rate factor at `progress` in [0, 1]: linear warm-up, then a cosine down to `floor`."""
    if progress < warmup:
        return max(progress / warmup, floor)
    cosine = 0.5 * (1 + torch.cos(torch.tensor((progress - warmup) / (1 - warmup) * torch.pi)).item())
    return floor + (1 - floor) * cosine


def _key(schedule: Schedule) -> str:
    """What a resumable state must have in common with the run that continues it."""
    return hashlib.sha256(repr(schedule).encode()).hexdigest()[:12]


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA, float32 on a CPU, where most emulate bfloat16. Uncached, so that graphs can capture it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


class PretrainingLoop:
    """Trains `modules` by a loss function; afterwards their weights are the moving average."""

    def __init__(
        self,
        modules: list[torch.nn.Module],
        schedule: Schedule,
        work: Path,
        name: str,
        compiled: Sequence[torch.nn.Module] = (),
    ) -> None:
        """`compiled` are the modules that pay to compile, on CUDA."""
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.schedule, self.name = schedule, name
        self.device = self.parameters[0].device
        decayed = [parameter for parameter in self.parameters if parameter.ndim > 1]
        plain = [parameter for parameter in self.parameters if parameter.ndim <= 1]
        on_gpu = self.device.type == "cuda"
        # A tensor, so that a captured graph reads the current value.
        self.learning_rate = torch.tensor(schedule.learning_rate, device=self.device)
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=self.learning_rate if on_gpu else schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            betas=(0.9, 0.98),
            fused=on_gpu,
            capturable=on_gpu,
        )
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.resume = ResumePoint(work / f"{name}-{_key(schedule)}", interval_s=60.0)
        self.start, self.total = 0, schedule.steps
        self._restore()
        if on_gpu and schedule.compiled:
            for module in compiled:
                module.compile()

    def _restore(self) -> None:
        state = self.resume.load()
        if state is None:
            return
        self.start, self.total = state["step"], state["total"]
        for index, parameter in enumerate(self.parameters):
            parameter.data.copy_(state["parameters"][str(index)])
            self.average[index].copy_(state["average"][str(index)])
        restore_optimizer(self.optimizer, state["optimizer"])
        # Loading copies the groups; the learning rate must stay the tensor that a captured graph reads.
        if self.device.type == "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
        torch.manual_seed(self.start)

    def _save(self, step: int) -> None:
        numbered = {str(index): parameter for index, parameter in enumerate(self.parameters)}
        average = {str(index): parameter for index, parameter in enumerate(self.average)}
        state = {"step": step, "total": self.total, "parameters": numbered, "average": average}
        self.resume.save({**state, "optimizer": optimizer_state(self.optimizer)})

    def _fit_budget(self, step: int, started: float, bar: tqdm) -> None:
        """Shorten the schedule once the speed is known."""
        if self.schedule.minutes is None or step - self.start != 2 * _CALIBRATION_STEPS:
            return
        self._synchronize()
        elapsed = time.monotonic() - started
        per_step = elapsed / _CALIBRATION_STEPS
        affordable = step + int((self.schedule.minutes * 60 - 2 * elapsed) / per_step)
        self.total = min(self.total, max(affordable, step + 1))
        print(f"{self.name}: {per_step * 1e3:.1f} ms a step, {self.total} steps", flush=True)
        bar.total = self.total

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _optimise(self, loss_of: Callable[[], Tensor]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.detach()

    def _stepper(self, loss_of: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """One optimiser step; on CUDA a replayed graph, or the plain step where capturing fails."""
        if self.device.type != "cuda" or not self.schedule.graphed:
            return lambda: self._optimise(loss_of)
        try:
            return self._capture(loss_of)
        except RuntimeError as error:
            print(f"{self.name}: no CUDA graph, training goes on without: {error}", flush=True)
            return lambda: self._optimise(loss_of)

    def _capture(self, loss_of: Callable[[], Tensor]) -> Callable[[], Tensor]:
        # Warming up takes real steps; without a learning rate they only prime the moments.
        self.learning_rate.zero_()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARMUP_STEPS):
                self._optimise(loss_of)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._optimise(loss_of)

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay

    def _set_learning_rate(self, progress: float) -> None:
        value = self.schedule.learning_rate * one_cycle(progress)
        self.learning_rate.fill_(value)
        if self.device.type != "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = value

    def _average(self, step: int) -> None:
        """Follow the weights every few steps; a young average follows closely, to forget the random start."""
        if step % _AVERAGE_EVERY == 0 or step == self.total:
            weight = min(1.0, max(self.schedule.ema * _AVERAGE_EVERY, 10 * _AVERAGE_EVERY / (step + 1)))
            weights = [parameter.detach() for parameter in self.parameters]
            torch._foreach_lerp_(self.average, weights, weight)  # pyright: ignore[reportPrivateImportUsage]  # has no public name

    def run(self, loss_of: Callable[[], Tensor], report_every: int = 1000) -> None:
        """Train; `loss_of()` returns the loss of a fresh batch."""
        started, step = time.monotonic(), self.start
        advance = self._stepper(loss_of) if step < self.total else None
        bar = trange(self.total, initial=step, desc=self.name, mininterval=20)
        while advance is not None and step < self.total:
            if step - self.start == _CALIBRATION_STEPS:
                self._synchronize()
                started = time.monotonic()  # compilation is behind us
            self._set_learning_rate(step / self.total)
            loss = advance()
            step += 1
            self._average(step)
            bar.update()
            self._fit_budget(step, started, bar)
            if step % report_every == 0:
                print(f"{self.name}: step {step}/{self.total} loss {loss.item():.4f}", flush=True)
            if self.resume.due():
                self._save(step)
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.data.copy_(average)
        self.resume.clear()
