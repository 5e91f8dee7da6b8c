"""The fine-tuning loop that DreamBooth and its multi-view continuation share: seeded, resumable, checkpointed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.context import ResumePoint, StepContext, optimizer_state, restore_optimizer
from dreambooth3d.diffusion.components import Components
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.weights import WeightsRef, save_weights, sha256_file

LOG_EVERY = 5


@dataclass(frozen=True)
class ImageGroup:
    """Training images that share a place in the batch and in the loss.

    Attributes:
        name: such as `instance`; its loss is logged as `<name>_loss`.
        latents: (n, channels, h, w), scaled, on the device.
        prompts: n prompts.
        count: images per step.
        weight: of the group's mean squared error in the loss.
    """

    name: str
    latents: Tensor
    prompts: Sequence[str]
    count: int
    weight: float


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the fields mean what they mean in `FinetuneConfig`.

    Attributes:
        first_step: step number to count from, for a continued checkpoint.
        checkpoint_every: None keeps only the last one.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_clip: float
    train_text_encoder: bool
    mixed_precision: str
    checkpoint_every: int | None = None
    first_step: int = 0


@dataclass
class TrainingResult:
    """What training leaves behind.

    Attributes:
        checkpoints: by step.
        grids: sample grids as uint8 (height, width, 3) by step.
        steps_done: steps that were run, earlier runs of the same training included.
        interrupted: whether the user's stop signal ended it.
    """

    checkpoints: dict[int, DreamBoothCheckpoint] = field(default_factory=dict)
    grids: dict[int, Tensor] = field(default_factory=dict)
    steps_done: int = 0
    interrupted: bool = False


OnCheckpoint = Callable[[int], Tensor | None]


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """A generator of its own for each step: a resumed run draws what an uninterrupted one would, with no state kept."""
    state = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def make_accelerator(device: torch.device, mixed_precision: str) -> Accelerator:
    """An accelerator for one training; the settings of an earlier one in this process do not stick."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)


def parameter_groups(networks: Sequence[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: no decay on embeddings, norms and biases, whose size carries meaning."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for network in networks:
        for name, parameter in network.named_parameters():
            (free if parameter.ndim < 2 or "embedding" in name else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class Trainer:
    """Trains a model's UNet and text encoder on groups of latents.

    Args:
        components: loaded with `trainable=True`; changed in place.
        groups: what a batch is made of.
        settings: how to train.
        seed: of batches, timesteps and noise.
        context: device, log, work folder, stop signal.
        on_checkpoint: called at each checkpoint, may return a sample grid.
    """

    def __init__(
        self,
        components: Components,
        groups: Sequence[ImageGroup],
        settings: TrainingSettings,
        seed: int,
        context: StepContext,
        on_checkpoint: OnCheckpoint = lambda step: None,
    ) -> None:
        self.components, self.groups, self.settings = components, list(groups), settings
        self.seed, self.context, self.on_checkpoint = seed, context, on_checkpoint
        self.result = TrainingResult()
        components.text_encoder.requires_grad_(settings.train_text_encoder)
        trained = [components.unet] + ([components.text_encoder] if settings.train_text_encoder else [])
        # Fused also on the CPU, where it takes half the time of the default.
        self.optimizer = torch.optim.AdamW(
            parameter_groups(trained, settings.weight_decay), lr=settings.learning_rate, fused=True
        )
        self._trained_parameters = [parameter for network in trained for parameter in network.parameters()]
        self.accelerator = make_accelerator(context.device, settings.mixed_precision)
        self._unet, self._text_encoder, self._stepper = self._prepare()
        self._token_ids, self._prompt_index = self._index_prompts()
        self._sample_weights = torch.cat(
            [torch.full((group.count,), group.weight / group.count) for group in self.groups]
        ).to(components.device)
        self._fixed_embeddings = None if settings.train_text_encoder else self._embed().detach()
        self._pending: list[dict[str, Tensor]] = []

    def _prepare(self) -> tuple[nn.Module, nn.Module, Any]:
        """UNet, text encoder and optimizer as accelerate wants to run them."""
        parts = self.components
        if self.settings.train_text_encoder:
            return self.accelerator.prepare(parts.unet, parts.text_encoder, self.optimizer)
        unet, stepper = self.accelerator.prepare(parts.unet, self.optimizer)
        return unet, parts.text_encoder, stepper

    def _index_prompts(self) -> tuple[Tensor, list[Tensor]]:
        """Token ids of the distinct prompts, and per group the row of each image's prompt."""
        distinct = list(dict.fromkeys(prompt for group in self.groups for prompt in group.prompts))
        rows = {prompt: row for row, prompt in enumerate(distinct)}
        index = [torch.tensor([rows[prompt] for prompt in group.prompts]) for group in self.groups]
        return self.components.tokenize(distinct), index

    def _embed(self) -> Tensor:
        """(prompts, tokens, dim) embeddings of the distinct prompts; a batch repeats them, so each is encoded once."""
        return self._text_encoder(self._token_ids)[0]

    def run(self) -> TrainingResult:
        """Train from the stored state or from the start until done or told to stop."""
        resume = self.context.resume_point()
        start = self._resume(resume)
        if start == 0 and self._is_scheduled(0):
            self._checkpoint(0)
        self.components.unet.train()
        self.components.text_encoder.train(self.settings.train_text_encoder)
        main = self.accelerator.is_main_process
        bar = tqdm(
            total=self.settings.steps,
            initial=start,
            desc=self.context.log.name,
            disable=not (self.context.progress and main),
        )
        with bar:
            for step in range(start, self.settings.steps):
                if self.context.should_stop() and step > 0:
                    self.result.interrupted = True
                    break
                self._pending.append(self._step(step))
                bar.update()
                self._after_step(step + 1, resume, bar)
        self._finish(resume)
        return self.result

    def _step(self, step: int) -> dict[str, Tensor]:
        """One optimiser step; its losses and gradient norm stay on the device."""
        rate = self.settings.learning_rate * min(1.0, (step + 1) / max(1, self.settings.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        latents, prompt_rows, timesteps, noise = self._draw(step)
        schedule = self.components.scheduler
        noisy = schedule.add_noise(latents, noise, timesteps)
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        embeddings = self._embed() if self._fixed_embeddings is None else self._fixed_embeddings
        output = self._unet(noisy, timesteps, encoder_hidden_states=embeddings[prompt_rows]).sample
        errors = (output.float() - target).square().mean(dim=(1, 2, 3))
        loss = (errors * self._sample_weights).sum()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self._trained_parameters, self.settings.gradient_clip)
        self._stepper.step()
        self._stepper.zero_grad()
        parts = errors.detach().split([group.count for group in self.groups])
        losses = {f"{group.name}_loss": part.mean() for group, part in zip(self.groups, parts, strict=True)}
        return {"loss": loss.detach(), **losses, "gradient_norm": norm.detach()}

    def _draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A batch: latents (n, c, h, w), prompt rows (n,), timesteps (n,) and noise, from the step's own generator."""
        generator = step_generator(self.seed, step, self.accelerator.process_index)
        latents, rows = [], []
        for group, index in zip(self.groups, self._prompt_index, strict=True):
            chosen = torch.randint(len(group.latents), (group.count,), generator=generator)
            latents.append(group.latents[chosen.to(group.latents.device)])
            rows.append(index[chosen])
        batch, device = torch.cat(latents), self.components.device
        count = self.components.scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, count, (len(batch),), generator=generator)
        noise = torch.randn(batch.shape, generator=generator)
        return batch, torch.cat(rows).to(device), timesteps.to(device), noise.to(device)

    def _after_step(self, done: int, resume: ResumePoint, bar: tqdm) -> None:
        """Log, keep a checkpoint, save the resumable state, each when due."""
        self.result.steps_done = done
        checkpoint_due = self._is_scheduled(done)
        if done % LOG_EVERY and done != self.settings.steps and not checkpoint_due:
            return
        bar.set_postfix(loss=f"{self._flush(done):.3f}")
        if checkpoint_due:
            self._checkpoint(done)
        if resume.due() and self.accelerator.is_main_process:
            resume.save(self._state())

    def _is_scheduled(self, done: int) -> bool:
        """Whether a checkpoint belongs here; one that an interruption left elsewhere is not kept when resuming."""
        every = self.settings.checkpoint_every
        return every is not None and done % every == 0

    def _flush(self, done: int) -> float:
        """Write the mean of the steps since the last point to the log; returns the loss.

        Raises:
            DreamBooth3DError: the loss is no longer finite.
        """
        means = {name: float(torch.stack([entry[name] for entry in self._pending]).mean()) for name in self._pending[0]}
        self._pending.clear()
        if not math.isfinite(means["loss"]):
            raise DreamBooth3DError(
                f"{self.context.log.name}: the loss was no longer finite at step {done}. Lower {self.context.log.name}"
                ".learning_rate, or set mixed_precision to no."
            )
        rate = self.optimizer.param_groups[0]["lr"]
        self.context.log.scalars(self.settings.first_step + done, **means, learning_rate=rate)
        return means["loss"]

    def _checkpoint(self, done: int) -> None:
        """Save UNet and text encoder as one pair, in half precision, and draw the sample grid."""
        if not self.accelerator.is_main_process:
            return
        step = self.settings.first_step + done
        folder = self.context.folder / "checkpoints" / f"{step:06d}"
        unet = save_weights(_half(self.components.unet), folder / "unet.safetensors")
        text_encoder = self._save_text_encoder(folder)
        self.result.checkpoints[done] = DreamBoothCheckpoint(step, unet, text_encoder, self.components.base)
        self.components.forget_prompts()
        grid = self.on_checkpoint(step)
        if grid is not None:
            self.result.grids[done] = grid
            self.context.log.image(f"samples/{step:06d}", grid)

    def _save_text_encoder(self, folder: Any) -> WeightsRef:
        """The text encoder beside its UNet; one that is not trained is stored once."""
        if not self.settings.train_text_encoder and self.result.checkpoints:
            return next(iter(self.result.checkpoints.values())).text_encoder
        return save_weights(_half(self.components.text_encoder), folder / "text_encoder.safetensors")

    def _finish(self, resume: ResumePoint) -> None:
        """Keep the last weights; forget the state on success, keep it for a later run when interrupted."""
        done = self.result.steps_done
        if self._pending:
            self._flush(done)
        if done not in self.result.checkpoints:
            self._checkpoint(done)
        if self.accelerator.is_main_process:
            if self.result.interrupted:
                resume.save(self._state())
            else:
                resume.clear()
        self.components.unet.eval()
        self.components.text_encoder.eval()
        self.components.forget_prompts()

    def _state(self) -> dict[str, Any]:
        """Everything that a killed run needs to end as if it had not been killed."""
        scaler = self.accelerator.scaler
        return {
            "done": self.result.steps_done,
            "unet": self.components.unet.state_dict(),
            "text_encoder": self.components.text_encoder.state_dict() if self.settings.train_text_encoder else {},
            "optimizer": optimizer_state(self.optimizer),
            "scaler": dict(scaler.state_dict()) if scaler is not None else {},
            "log": self.context.log.state(),
            "checkpoints": {
                str(done): [
                    [checkpoint.step, ref.uri, ref.sha256, ref.size_bytes]
                    for ref in (checkpoint.unet, checkpoint.text_encoder)
                ]
                for done, checkpoint in self.result.checkpoints.items()
                if self._is_scheduled(done)
            },
            "grids": {str(done): grid for done, grid in self.result.grids.items() if self._is_scheduled(done)},
        }

    def _resume(self, resume: ResumePoint) -> int:
        """Continue from a stored state whose checkpoints are still there; returns the steps already done."""
        state = resume.load()
        if state is None:
            return 0
        checkpoints = _checkpoints(state["checkpoints"], self.components)
        if checkpoints is None:
            return 0
        self.components.unet.load_state_dict(state["unet"])
        if self.settings.train_text_encoder:
            self.components.text_encoder.load_state_dict(state["text_encoder"])
        restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.context.log.restore(state["log"])
        grids = {int(done): grid for done, grid in state["grids"].items()}
        for done, grid in grids.items():
            self.context.log.image(f"samples/{checkpoints[done].step:06d}", grid)
        self.result = TrainingResult(checkpoints, grids, int(state["done"]))
        return self.result.steps_done


def _half(network: nn.Module) -> dict[str, Tensor]:
    """Weights for inference: floating-point tensors in float16."""
    return {
        name: value.detach().half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def _checkpoints(entries: dict[str, list[list[Any]]], components: Components) -> dict[int, DreamBoothCheckpoint] | None:
    """Checkpoints of a stored state, or None if a file is gone or not what it was."""
    checkpoints = {}
    for done, pair in entries.items():
        refs = [WeightsRef(uri, sha256, size) for _, uri, sha256, size in pair]
        try:
            if any(sha256_file(ref.uri) != ref.sha256 for ref in refs):
                return None
        except OSError:
            return None
        checkpoints[int(done)] = DreamBoothCheckpoint(pair[0][0], *refs, components.base)
    return checkpoints
