"""The fine-tuning loop that DreamBooth and its multi-view continuation share: seeded, resumable, checkpointed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.config.base import Acceleration
from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.diffusion.finetuning import denoising_loss
from dreambooth3d.diffusion.finetuning.training_graph import TrainingGraph
from dreambooth3d.diffusion.model import lora
from dreambooth3d.diffusion.model.components import Components, half
from dreambooth3d.errors import ConfigError, DreamBooth3DError
from dreambooth3d.parallel import ALONE, Team
from dreambooth3d.runtime import SAVING_SHARE, ResumePoint, Runtime, optimizer_state, restore_optimizer
from dreambooth3d.transfer import send
from dreambooth3d.weights import WeightsRef, save_weights, sha256_file

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel

LOG_EVERY = 5
DISK_BYTES_PER_SECOND = 0.5e9


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
    """How to train; the fields mean what they mean in `TrainerConfig` and `FinetuneConfig`.

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
    acceleration: Acceleration = "none"
    checkpoint_every: int | None = None
    first_step: int = 0
    checkpoints_kept: int | None = None
    text_encoder_learning_rate: float | None = None
    lora_rank: int = 0
    optimizer: str = "adamw"
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    snr_gamma: float | None = None
    noise_offset: float = 0.0
    ema_decay: float = 0.0

    @classmethod
    def from_config(cls, config: TrainerConfig, first_step: int = 0) -> TrainingSettings:
        """The settings that a config names; what it lacks keeps its default."""
        known = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in config if name in known}, first_step=first_step)


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
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)


def _running_average(parameters: list[nn.Parameter], decay: float) -> EMAModel | None:
    from diffusers.training_utils import EMAModel

    return EMAModel(parameters, decay=decay, foreach=True) if decay else None


def parameter_groups(networks: Sequence[tuple[nn.Module, float]], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: no decay on embeddings, norms and biases, whose size carries meaning.

    Args:
        networks: each with its peak learning rate; only parameters that take gradients count.

    Returns:
        Groups that are not empty; each also keeps its `peak_lr`, which a warm-up leads to.
    """
    groups = []
    for network, rate in networks:
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                (free if parameter.ndim < 2 or "embedding" in name else decayed).append(parameter)
        for parameters, decay in ((decayed, weight_decay), (free, 0.0)):
            groups.append({"params": parameters, "weight_decay": decay, "lr": rate, "peak_lr": rate})
    return [group for group in groups if group["params"]]


def require_optimizer(name: str, where: str) -> None:
    """Check that an optimiser's package is installed.

    Args:
        name: as in `TrainerConfig.optimizer`.
        where: the section of the config that asks for it.

    Raises:
        ConfigError: it is not.
    """
    if name == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{where}.optimizer: adamw_8bit needs the package bitsandbytes, which is not installed. Run `pip install "
            f"bitsandbytes`, or set {where}.optimizer to adamw."
        )


def make_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW over parameter groups, with its state in float32 or, by bitsandbytes, in 8 bits."""
    options = {"lr": settings.learning_rate, "betas": settings.adam_betas, "eps": settings.adam_epsilon}
    if settings.optimizer == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **options)
    # Fused also on the CPU, where it takes half the time of the default.
    return torch.optim.AdamW(groups, **options, fused=True)


class Trainer:
    """Trains a model's UNet and text encoder on groups of latents.

    Args:
        components: loaded with `trainable=True`; changed in place.
        groups: what a batch is made of.
        settings: how to train.
        seed: of batches, timesteps and noise.
        runtime: device, log, work folder, stop signal.
        on_checkpoint: called at each checkpoint, may return a sample grid.
        team: the processes that train together.
    """

    def __init__(
        self,
        components: Components,
        groups: Sequence[ImageGroup],
        settings: TrainingSettings,
        seed: int,
        runtime: Runtime,
        on_checkpoint: OnCheckpoint = lambda step: None,
        team: Team = ALONE,
    ) -> None:
        self.components, self.groups, self.settings = components, list(groups), settings
        self.seed, self.runtime, self.on_checkpoint, self.team = seed, runtime, on_checkpoint, team
        self.result = TrainingResult()
        self._dropped: list[DreamBoothCheckpoint] = []
        # As in `Components.accelerate`. The optimizer in 8 bits wants its parameters row by row.
        if runtime.device.type == "cuda" and settings.optimizer == "adamw":
            nn.Module.to(components.unet, memory_format=torch.channels_last)
        self._select_trained()
        rates = (settings.learning_rate, settings.text_encoder_learning_rate or settings.learning_rate)
        trained = list(zip(self._trained.values(), rates, strict=False))
        self.optimizer = make_optimizer(parameter_groups(trained, settings.weight_decay), settings)
        self._trained_parameters = [
            parameter for network, _ in trained for parameter in network.parameters() if parameter.requires_grad
        ]
        self._average = _running_average(self._trained_parameters, settings.ema_decay)
        self.accelerator = make_accelerator(runtime.device, settings.mixed_precision)
        self._unet, self._text_encoder, self._stepper = self._prepare()
        self._token_ids, self._prompt_index = self._index_prompts()
        self._sample_weights = torch.cat(
            [torch.full((group.count,), group.weight / group.count) for group in self.groups]
        ).to(components.device)
        self._timestep_weights = self._weigh_timesteps()
        self._fixed_embeddings = None if settings.train_text_encoder else self._embed().detach()
        self._graph = TrainingGraph(self._losses, self._scale_and_backward, self._trained_parameters, self._fastest())
        self._pending: list[dict[str, Tensor]] = []

    def _fastest(self) -> Acceleration:
        """How forward and backward pass run: a graph cannot add gradients up, nor keep the state of random numbers."""
        settings = self.settings
        alone = self.team.size == 1 and settings.gradient_accumulation_steps == 1
        return settings.acceleration if alone and not settings.gradient_checkpointing else "none"

    def _select_trained(self) -> None:
        """Say which networks are trained, all their weights or a LoRA on them, and freeze the rest."""
        parts, settings = self.components, self.settings
        parts.text_encoder.requires_grad_(settings.train_text_encoder)
        self._trained: dict[str, nn.Module] = {"unet": parts.unet}
        if settings.train_text_encoder:
            self._trained["text_encoder"] = parts.text_encoder
        if settings.lora_rank:
            generator = torch.Generator().manual_seed(self.seed)
            for kind, network in self._trained.items():
                lora.add_adapters(network, kind, settings.lora_rank, generator)
        if settings.gradient_checkpointing:
            _checkpoint_activations(self._trained)

    def _weigh_timesteps(self) -> Tensor | None:
        """(timesteps,) weights of the loss on the device, None where all are 1."""
        if self.settings.snr_gamma is None:
            return None
        parts = self.components
        return denoising_loss.min_snr_weights(
            parts.alphas_cumprod, self.settings.snr_gamma, parts.scheduler.config.prediction_type
        )

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
        resume = self.runtime.resume_point(interval_s=self._saving_interval())
        start = self._resume(resume)
        if start == 0 and self._is_scheduled(0):
            self._checkpoint(0)
        self.components.unet.train()
        self.components.text_encoder.train(self.settings.train_text_encoder)
        main = self.accelerator.is_main_process
        bar = tqdm(
            total=self.settings.steps,
            initial=start,
            desc=self.runtime.log.name,
            disable=not (self.runtime.progress and main),
        )
        with bar:
            for step in range(start, self.settings.steps):
                if self.team.share(self.runtime.should_stop()) and step > 0:
                    self.result.interrupted = True
                    break
                self._pending.append(self.train_step(step))
                bar.update()
                self._after_step(step + 1, resume, bar)
        self._finish(resume)
        return self.result

    def _saving_interval(self) -> float:
        """Seconds between resumable states, which hold weights and two moments: a twentieth of the time at most."""
        size = 3 * sum(parameter.numel() * 4 for parameter in self._trained_parameters)
        return max(30.0, SAVING_SHARE * size / DISK_BYTES_PER_SECOND)

    def train_step(self, step: int) -> dict[str, Tensor]:
        """One optimiser step; its losses and gradient norm stay on the device."""
        warmed = min(1.0, (step + 1) / max(1, self.settings.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * warmed
        batches = self.settings.gradient_accumulation_steps
        losses = [self._backward(step * batches + index, index == batches - 1) for index in range(batches)]
        norm = self.accelerator.clip_grad_norm_(self._trained_parameters, self.settings.gradient_clip)
        self._stepper.step()
        if not self._graph.keeps_gradients:
            self._stepper.zero_grad()
        if self._average is not None:
            self._average.step(self._trained_parameters)
        means = {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}
        return {**means, "gradient_norm": norm.detach()}

    def _backward(self, draw: int, last: bool) -> dict[str, Tensor]:
        """Add one batch's share to the gradients; returns its losses.

        Args:
            draw: number of the batch.
            last: whether it is the optimiser step's last batch, after which processes exchange their gradients.
        """
        latents, prompt_rows, timesteps, noise = self._draw(draw)
        prediction_type = self.components.scheduler.config.prediction_type
        alphas = self.components.alphas_cumprod[timesteps]
        noisy = denoising_loss.add_noise(latents, noise, alphas)
        target = denoising_loss.training_target(latents, noise, alphas, prediction_type)
        weights = self._sample_weights
        if self._timestep_weights is not None:
            weights = weights * self._timestep_weights[timesteps]
        with ExitStack() as stack:
            if not last:
                stack.enter_context(self.accelerator.no_sync(self._unet))
                stack.enter_context(self.accelerator.no_sync(self._text_encoder))
            loss, errors = self._graph(noisy, timesteps, prompt_rows, target, weights)
        parts = errors.split([group.count for group in self.groups])
        losses = {f"{group.name}_loss": part.mean() for group, part in zip(self.groups, parts, strict=True)}
        return {"loss": loss.clone(), **losses}

    def _losses(
        self, noisy: Tensor, timesteps: Tensor, prompt_rows: Tensor, target: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The batch's loss, and the squared error of each image (n,)."""
        embeddings = self._embed() if self._fixed_embeddings is None else self._fixed_embeddings
        output = self._unet(noisy, timesteps, encoder_hidden_states=embeddings[prompt_rows]).sample
        errors = denoising_loss.squared_errors(output, target)
        return (errors * weights).sum(), errors

    def _scale_and_backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss / self.settings.gradient_accumulation_steps)

    def _draw(self, draw: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A batch: latents (n, c, h, w), prompt rows (n,), timesteps (n,) and noise, from its own generator."""
        generator = step_generator(self.seed, draw, self.accelerator.process_index)
        latents, rows = [], []
        for group, index in zip(self.groups, self._prompt_index, strict=True):
            chosen = torch.randint(len(group.latents), (group.count,), generator=generator)
            latents.append(group.latents[chosen.to(group.latents.device, non_blocking=True)])
            rows.append(index[chosen])
        batch, device = torch.cat(latents), self.components.device
        count = self.components.scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, count, (len(batch),), generator=generator)
        noise = torch.randn(batch.shape, generator=generator)
        if self.settings.noise_offset:
            shift = torch.randn(*batch.shape[:2], 1, 1, generator=generator)
            noise = noise + self.settings.noise_offset * shift
        return batch, *(send(each, device) for each in (torch.cat(rows), timesteps, noise))

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
            self._delete_dropped()

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
                f"{self.runtime.log.name}: the loss was no longer finite at step {done}. Lower {self.runtime.log.name}"
                ".learning_rate, or set mixed_precision to no."
            )
        rate = self.optimizer.param_groups[0]["lr"]
        self.runtime.log.scalars(self.settings.first_step + done, **means, learning_rate=rate)
        return means["loss"]

    def _checkpoint(self, done: int) -> None:
        """Save UNet and text encoder as one pair, and draw the sample grid."""
        if not self.accelerator.is_main_process:
            return
        step = self.settings.first_step + done
        folder = self.runtime.folder / "checkpoints" / f"{step:06d}"
        with self._averaged():
            unet = save_weights(self._inference_weights("unet"), folder / "unet.safetensors")
            text_encoder = self._save_text_encoder(folder)
            self.components.forget_prompts()
            grid = self.on_checkpoint(step)
        self.components.forget_prompts()
        self.result.checkpoints[done] = DreamBoothCheckpoint(step, unet, text_encoder, self.components.base)
        self._drop_old()
        if grid is not None:
            self.result.grids[done] = grid
            self.runtime.log.image(f"samples/{step:06d}", grid)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Have the running average in the networks, where one is kept."""
        if self._average is None:
            yield
            return
        self._average.store(self._trained_parameters)
        self._average.copy_to(self._trained_parameters)
        try:
            yield
        finally:
            self._average.restore(self._trained_parameters)

    def _inference_weights(self, kind: str) -> dict[str, Tensor]:
        """A network's weights for the file: all of them in half precision, or a LoRA as far as it is one."""
        network = getattr(self.components, kind)
        if not self.settings.lora_rank:
            return half(network)
        start = self.components.checkpoint
        adapters = lora.adapter_weights(network, kind) if kind in self._trained else {}
        return lora.combined(getattr(start, kind).load() if start is not None else {}, adapters)

    def _save_text_encoder(self, folder: Path) -> WeightsRef:
        """The text encoder beside its UNet; one that is not trained is stored once."""
        if not self.settings.train_text_encoder and self.result.checkpoints:
            return next(iter(self.result.checkpoints.values())).text_encoder
        return save_weights(self._inference_weights("text_encoder"), folder / "text_encoder.safetensors")

    def _drop_old(self) -> None:
        """Let go of checkpoints beyond those to keep; their files stay until no stored state names them."""
        kept = self.settings.checkpoints_kept
        if kept is not None:
            trained = sorted(done for done in self.result.checkpoints if done > 0)
            self._dropped += [self.result.checkpoints.pop(done) for done in trained[:-kept]]

    def _delete_dropped(self) -> None:
        """Delete the files of checkpoints that were let go, but those that a kept one shares."""
        pairs = self.result.checkpoints.values()
        shared = {ref.uri for pair in pairs for ref in (pair.unet, pair.text_encoder)}
        while self._dropped:
            pair = self._dropped.pop()
            for file in {pair.unet.uri, pair.text_encoder.uri} - shared:
                Path(file).unlink(missing_ok=True)
            folder = Path(pair.unet.uri).parent
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

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
            self._delete_dropped()
        if self._average is not None:
            self._average.copy_to(self._trained_parameters)
        self._graph.release()
        self.components.unet.eval()
        self.components.text_encoder.eval()
        self.components.forget_prompts()

    def _state(self) -> dict[str, Any]:
        """Everything that a killed run needs to end as if it had not been killed."""
        scaler = self.accelerator.scaler
        return {
            "done": self.result.steps_done,
            **{kind: self._trained_state(network) for kind, network in self._trained.items()},
            "optimizer": optimizer_state(self.optimizer),
            "average": self._average_state(),
            "scaler": dict(scaler.state_dict()) if scaler is not None else {},
            "log": self.runtime.log.state(),
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

    def _trained_state(self, network: nn.Module) -> dict[str, Tensor]:
        """What training changes of a network: its state, or its LoRA."""
        state = network.state_dict()
        return {name: value for name, value in state.items() if "lora_" in name} if self.settings.lora_rank else state

    def _average_state(self) -> dict[str, Any]:
        """The running average, and how many steps it has seen."""
        if self._average is None:
            return {}
        weights = {str(index): weight for index, weight in enumerate(self._average.shadow_params)}
        return {"steps": self._average.optimization_step, "weights": weights}

    def _restore_average(self, state: dict[str, Any]) -> None:
        """Inverse of `_average_state`."""
        if self._average is not None:
            self._average.optimization_step = int(state["steps"])
            for index, weight in enumerate(self._average.shadow_params):
                weight.copy_(state["weights"][str(index)])

    def _resume(self, resume: ResumePoint) -> int:
        """Continue from a stored state whose checkpoints are still there; returns the steps already done."""
        state = resume.load()
        if state is None:
            return 0
        checkpoints = _checkpoints(state["checkpoints"], self.components)
        if checkpoints is None:
            return 0
        for kind, network in self._trained.items():
            network.load_state_dict(state[kind], strict=not self.settings.lora_rank)
        restore_optimizer(self.optimizer, state["optimizer"])
        self._restore_average(state["average"])
        if state["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.runtime.log.restore(state["log"])
        grids = {int(done): grid for done, grid in state["grids"].items()}
        for done, grid in grids.items():
            self.runtime.log.image(f"samples/{self.settings.first_step + done:06d}", grid)
        self.result = TrainingResult(checkpoints, grids, int(state["done"]))
        return self.result.steps_done


def _checkpoint_activations(networks: dict[str, nn.Module]) -> None:
    """Have activations computed again in the backward pass instead of kept."""
    networks["unet"].enable_gradient_checkpointing()
    if "text_encoder" in networks:
        encoder = networks["text_encoder"]
        # Versions of transformers differ in the name.
        enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
        enable({"use_reentrant": False})


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
