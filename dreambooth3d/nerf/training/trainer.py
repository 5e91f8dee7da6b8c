"""One attempt at a stage of score distillation."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.nerf.rendering.aside import moment
from dreambooth3d.nerf.training.checks import Checks
from dreambooth3d.nerf.training.clock import Clock
from dreambooth3d.nerf.training.drawing import ViewDraws
from dreambooth3d.nerf.training.guards import Guards, Ledger
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.learner import Learner
from dreambooth3d.nerf.training.randomness import Randomness
from dreambooth3d.nerf.training.schedules import weights_at
from dreambooth3d.nerf.training.sketch import sketch_of
from dreambooth3d.nerf.training.targets import Targets
from dreambooth3d.nerf.training.view_loss import view_loss
from dreambooth3d.progress import LoopProgress
from dreambooth3d.representation.interface import Losses, Position, Representation
from dreambooth3d.runtime import ResumePoint, Runtime

SCALARS_EVERY = 10
RETRY_SEED_STRIDE = 100_003


@dataclass(frozen=True)
class Attempt:
    """Which attempt at a stage it is.

    Attributes:
        number: of attempts before, each of which had another seed.
        spent_steps: of the attempts that were given up. Their points stay in the time series, as a tracker has received
            them already; this attempt's begin after them.
        ledger: what the guards found in all of them.
    """

    number: int = 0
    spent_steps: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def next(self, steps: int) -> Attempt:
        """The attempt after this one, which was given up after so many steps."""
        return Attempt(self.number + 1, self.spent_steps + steps, self.ledger)

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> Attempt:
        """The attempt of `Trainer.state`."""
        ledger = Ledger.from_state(state["checks"]["guards"]["ledger"])
        return Attempt(int(state["attempt"]), int(state["spent_steps"]), ledger)


class Trainer:
    """Takes the steps of one attempt; collaborators draw, learn, follow the photos, and look.

    Args:
        inputs: what the asset learns from.
        config: the stage.
        seed: of the stage; each attempt has its own.
        runtime: log, device, stop signal.
        attempt: which one it is.

    Attributes:
        step: steps taken.
        interrupted: whether it was asked to stop before its end.
    """

    def __init__(
        self, inputs: DistillInputs, config: DistillConfig, seed: int, runtime: Runtime, attempt: Attempt | None = None
    ) -> None:
        self.inputs, self.config, self.runtime, self.attempt = inputs, config, runtime, attempt or Attempt()
        self.guidance, self.team = inputs.guidance, inputs.team
        self.step, self.interrupted = 0, False
        own_seed, device = seed + RETRY_SEED_STRIDE * self.attempt.number, runtime.device
        self.targets = Targets(inputs, config, device)
        self.guards = Guards(
            config.guards,
            runtime.log.name,
            self.attempt.number,
            self.attempt.ledger,
            view_logits=inputs.view_logits,
            likeness=inputs.likeness,
            photos=inputs.photos,
        )
        self.checks = Checks(config, self.guards, runtime.log)
        self.learner = Learner(config, own_seed, device, inputs.init, inputs.latent_colors)
        self.random = Randomness.of(own_seed, device)
        self.views = ViewDraws(inputs, config, self.random.generator)
        self.sketch = sketch_of(config.sketch, device)
        self.clock = Clock()
        self._bar = LoopProgress(config.steps, runtime.log.name, shown=False)

    @property
    def asset(self) -> Representation:
        """The asset that learns."""
        return self.learner.asset

    @property
    def progress(self) -> float:
        """Position in the stage, in [0, 1]."""
        return self.step / self.config.steps

    def run(self, resume: ResumePoint) -> RadianceField:
        """Train to the end, to convergence or until asked to stop; the state is saved to `resume` on the way.

        Raises:
            Collapse: the attempt is given up.
            GuardError: a guard that stops the run tripped.
        """
        config, runtime = self.config, self.runtime
        with LoopProgress(config.steps, runtime.log.name, done=self.step, shown=runtime.progress) as self._bar:
            while self.step < config.steps and not self.checks.converged and not self.interrupted:
                figures = self.train_step()
                self._bar.update()
                if self.step % SCALARS_EVERY == 0 or self.step == 1:
                    self._log(figures)
                if self.step % config.check_every == 0 and self.step < config.steps:
                    with self._bar.aside():
                        self._check()
                self.interrupted = runtime.should_stop() and self.step < config.steps
                if self.interrupted or resume.due():
                    with self._bar.aside():
                        resume.save(self.state())
        return self._finish()

    def train_step(self) -> dict[str, Tensor | float]:
        """One optimiser step; returns the parts of its loss."""
        position = Position(self.step, self.progress)
        self.asset.before_step(position, self.random.generator)
        self._take_turn(self.targets.follow(self.learner.shown, self.progress))
        self.learner.set_rate(self.progress)
        loss, figures = self._loss()
        self.learner.learn(loss, self.team, position)
        with self._bar.aside():
            self.targets.improve()
        self.step += 1
        self.clock.tick()
        return figures

    def _take_turn(self, angle_deg: float) -> None:
        self.learner.take_turn(angle_deg, self.random.generator)

    def _loss(self) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The step's loss, and its parts for the log."""
        config, jitter = self.config, self.random.jitter
        batch = self.team.share(self.views(self.progress))
        self.team.copy_from_leader(self.asset)
        # Drawn before, and sampled after guidance is under way: the host waits for the samples only.
        targets = self.targets.draw(self.random.generator)
        ready = moment(self.runtime.device) if targets else None
        loss, figures = view_loss(self.asset, batch, self.guidance, config, jitter, self.team)
        parts: Losses = self.asset.shape_losses(weights_at(config.regularizers, self.progress), self.random.generator)
        if self.sketch is not None:
            parts |= self.sketch.losses(self.asset, self.random.generator)
        for target in targets:
            parts |= target.losses(self.asset, jitter, ready)
        for name, (weight, part) in parts.items():
            figures[name] = part.detach()
            figures["loss"] = figures["loss"] + weight * figures[name]
            loss = loss + weight * part
        return loss, figures

    def _log(self, figures: Mapping[str, Tensor | float]) -> None:
        """Append to the series, with the mean time per step since the last call."""
        values = {name: float(value) for name, value in figures.items()}
        self.guards.watch(values.values(), self.step)
        values["ms_per_step"] = self.clock.lap()
        values["learning_rate"] = self.learner.rate
        values |= self.asset.figures()
        self._log_scalars(values)
        self._bar.note(opacity=f"{values['opacity']:.3f}")

    def _log_scalars(self, values: Mapping[str, float]) -> None:
        """Append to the series at the present step of all attempts."""
        if values:
            self.runtime.log.scalars(self.attempt.spent_steps + self.step, **values)

    def _check(self) -> None:
        """Take previews, count checks without a change, and let the guards look."""
        self._log_scalars(self.checks.compare(self.learner.shown, self.targets.complete))
        self.checks.remember(self.step)
        self._guard()

    def _guard(self) -> None:
        """Let the guards look at the previews, log what they read, and act; once per step."""
        readings = self.checks.read(self.learner.shown, self.step, self.progress)
        self._log_scalars({f"guards/{reading.guard}": reading.value for reading in readings})
        self.guards.act(readings, self.step, self.interrupted)

    def _finish(self) -> RadianceField:
        """Final previews and metrics."""
        last = self.attempt.number >= self.config.collapse_retries
        if self.inputs.fresh and not last and not self.interrupted:
            self.targets.require_overlap()
        shown = self.learner.shown
        self._take_turn(self.targets.face_front(shown))
        made = self.targets.stand_up(shown)
        shown.refresh(self.random.generator)
        if made is not shown:
            made.refresh(self.random.generator)
        previews = self.checks.preview(made)
        self.checks.show_growth(self.step)
        self._guard()
        self._report(previews.opacity.mean().item())
        before = 0 if self.inputs.init is None else self.inputs.init.steps
        return made.artifact(previews.color.cpu(), before + self.step, self.runtime.log.record())

    def _report(self, opacity: float) -> None:
        """Log the metrics of the whole attempt."""
        log, seconds = self.runtime.log, self.clock.seconds
        log.metrics(
            steps=self.step,
            seconds=seconds,
            ms_per_step=1e3 * seconds / max(self.step, 1),
            opacity=opacity,
            collapse_retries=self.attempt.number,
            converged=self.checks.converged,
            interrupted=self.interrupted,
            peak_memory_mib=peak_memory_mib(self.runtime.device),
        )
        self.attempt.ledger.report(log)
        self.targets.report(self.learner.shown, log)

    def state(self) -> dict[str, Any]:
        """Everything needed to continue."""
        return {
            "attempt": self.attempt.number,
            "spent_steps": self.attempt.spent_steps,
            "step": self.step,
            "seconds": self.clock.seconds,
            "log": self.runtime.log.state(),
            "checks": self.checks.state(),
            "learner": self.learner.state(),
            "random": self.random.state(),
            "targets": self.targets.state(),
            "guidance": self.guidance.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.step = int(state["step"])
        self.clock.restore(float(state["seconds"]))
        self.runtime.log.restore(state["log"])
        self.checks.restore(state["checks"], self.runtime.device)
        self.learner.restore(state["learner"])
        self.random.restore(state["random"])
        self.targets.restore(state["targets"])
        self.guidance.restore(state["guidance"])


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far: of the GPU on CUDA, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
