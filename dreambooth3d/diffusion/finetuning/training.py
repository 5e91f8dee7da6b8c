"""The fine-tuning loop that DreamBooth and its multi-view continuation share: seeded, resumable, checkpointed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dreambooth3d.diffusion.finetuning.averaging import RunningAverage
from dreambooth3d.diffusion.finetuning.batches import BatchSource
from dreambooth3d.diffusion.finetuning.checkpoints import CheckpointKeeper
from dreambooth3d.diffusion.finetuning.loss_log import LOG_EVERY, LossLog, no_longer_finite
from dreambooth3d.diffusion.finetuning.networks import TrainedNetworks
from dreambooth3d.diffusion.finetuning.objective import DenoisingObjective
from dreambooth3d.diffusion.finetuning.optimizers import make_optimizer, warm_up
from dreambooth3d.diffusion.finetuning.plan import TrainingPlan, TrainingResult
from dreambooth3d.diffusion.finetuning.precision import lay_out, make_accelerator, prepare, usable_acceleration
from dreambooth3d.diffusion.finetuning.resumption import Progress, ResumableParts, Resumption
from dreambooth3d.diffusion.finetuning.training_graph import TrainingGraph
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.parallel import ALONE, Team
from dreambooth3d.progress import LoopProgress
from dreambooth3d.runtime import Runtime

OnCheckpoint = Callable[[int], UInt8[Tensor, "height width 3"] | None]
"""Called with a checkpoint's step while its weights are in the networks; may return a sample grid."""


def no_samples(step: int) -> None:
    """Draws nothing at a checkpoint."""


class DreamBoothTrainer:
    """Trains a model's UNet and text encoder on groups of latents.

    Args:
        components: loaded with `trainable=True`; changed in place.
        plan: what is trained on, and how.
        runtime: device, log, work folder, stop signal.
        on_checkpoint: draws samples.
        team: the processes that train together.
    """

    def __init__(
        self,
        components: Components,
        plan: TrainingPlan,
        runtime: Runtime,
        on_checkpoint: OnCheckpoint = no_samples,
        team: Team = ALONE,
    ) -> None:
        config = plan.config
        self.components, self.plan, self.config, self.runtime = components, plan, config, runtime
        self.on_checkpoint, self.team = on_checkpoint, team
        lay_out(components, config, runtime.device)
        self.networks = TrainedNetworks(components, config, plan.seed)
        self.optimizer = make_optimizer(self.networks, config)
        self.average = RunningAverage(self.networks.parameters, config.ema_decay)
        self.accelerator = make_accelerator(runtime.device, config.mixed_precision)
        self.prepared = prepare(self.accelerator, self.networks, self.optimizer)
        self.batches = BatchSource(components, plan, self.accelerator.process_index)
        self.objective = DenoisingObjective(components, self.prepared, plan, self.batches.token_ids)
        self.keeper = CheckpointKeeper(self.networks, plan.checkpoints, runtime.folder / "checkpoints")
        self._losses = LossLog(runtime.log, plan.checkpoints.first_step)
        self._progress = Progress()
        self._graph = TrainingGraph(
            self.objective.losses,
            self._scale_and_backward,
            self.networks.parameters,
            usable_acceleration(config, team),
        )

    @property
    def _leads(self) -> bool:
        """Whether this process writes what the team has learned."""
        return self.accelerator.is_main_process

    def run(self) -> TrainingResult:
        """Train from the stored state or from the start until done or told to stop."""
        resumption = self._resumption()
        self._progress = resumption.restore()
        start, steps = self._progress.done, self.config.steps
        if start == 0 and self.plan.checkpoints.is_due(0):
            self._checkpoint(0)
        self.networks.train()
        hidden = not (self.runtime.progress and self._leads)
        with LoopProgress(steps, self.runtime.log.name, done=start, shown=not hidden) as bar:
            for step in range(start, steps):
                if self.team.share(self.runtime.should_stop()) and step > 0:
                    self._progress.interrupted = True
                    break
                self._losses.add(self.train_step(step))
                bar.update()
                self._after_step(step + 1, resumption, bar)
        self._finish(resumption)
        progress = self._progress
        return TrainingResult(self.keeper.kept, progress.grids, progress.done, progress.interrupted)

    def _resumption(self) -> Resumption:
        parts = ResumableParts(
            self.networks,
            self.optimizer,
            self.average,
            self.accelerator.scaler,
            self.keeper,
            self.plan.checkpoints,
            self.runtime.log,
        )
        return Resumption(parts, self.runtime)

    def train_step(self, step: int) -> dict[str, Float[Tensor, ""]]:
        """One optimiser step; its losses and gradient norm stay on the device."""
        warm_up(self.optimizer, step, self.config.warmup_steps)
        count = self.config.gradient_accumulation_steps
        losses = [self.backward(step * count + index, index == count - 1) for index in range(count)]
        norm = self.accelerator.clip_grad_norm_(self.networks.parameters, self.config.gradient_clip)
        self.prepared.optimizer.step()
        if not self._graph.keeps_gradients:
            self.prepared.optimizer.zero_grad()
        self.average.follow()
        means = {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}
        return {**means, "gradient_norm": norm.detach()}

    def backward(self, number: int, last: bool) -> dict[str, Float[Tensor, ""]]:
        """Add one batch's share to the gradients; returns its losses.

        Args:
            number: of the batch.
            last: whether it is the optimiser step's last batch, after which processes exchange their gradients.
        """
        inputs = self.objective.inputs(self.batches.draw(number))
        with ExitStack() as stack:
            if not last:
                stack.enter_context(self.accelerator.no_sync(self.prepared.unet))
                stack.enter_context(self.accelerator.no_sync(self.prepared.text_encoder))
            loss, errors = self._graph(*inputs)
        return {"loss": loss.clone(), **self.objective.by_group(errors)}

    def _scale_and_backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss / self.config.gradient_accumulation_steps)

    def _after_step(self, done: int, resumption: Resumption, bar: LoopProgress) -> None:
        """Log, keep a checkpoint, save the resumable state, each when due."""
        self._progress.done = done
        checkpoint_due = self.plan.checkpoints.is_due(done)
        if done % LOG_EVERY and done != self.config.steps and not checkpoint_due:
            return
        bar.note(loss=f"{self._write_losses():.3f}")
        with bar.aside():
            if checkpoint_due:
                self._checkpoint(done)
            if resumption.due() and self._leads:
                resumption.save(self._progress)
                self.keeper.delete_dropped()

    def _write_losses(self) -> float:
        return self._losses.write(self._progress.done, self.optimizer.param_groups[0]["lr"])

    def _checkpoint(self, done: int) -> None:
        """Save UNet and text encoder as one pair, and draw the sample grid.

        Raises:
            DreamBooth3DError: the weights are no longer finite.
        """
        if not self._leads:
            return
        step = self.plan.checkpoints.first_step + done
        with self.average.swapped_in():
            # The last loss is that of the weights before the last update.
            if not self.networks.are_finite:
                raise no_longer_finite("the weights were", self.runtime.log.name, step)
            self.keeper.save(done)
            self.components.forget_prompts()
            grid = self.on_checkpoint(step)
        self.components.forget_prompts()
        if grid is not None:
            self._progress.grids[done] = grid
            self.runtime.log.image(f"samples/{step:06d}", grid)

    def _finish(self, resumption: Resumption) -> None:
        """Keep the last weights; forget the state on success, keep it for a later run when interrupted."""
        if not self._losses.is_empty:
            self._write_losses()
        if self._progress.done not in self.keeper.kept:
            self._checkpoint(self._progress.done)
        if self._leads:
            if self._progress.interrupted:
                resumption.save(self._progress)
            else:
                resumption.clear()
            self.keeper.delete_dropped()
        self.average.take_over()
        self._graph.release()
        self.networks.eval()
        self.components.forget_prompts()
