"""Score distillation: a field learns from guidance on its renders, and optionally from pseudo views."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dreambooth3d.artifacts import PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.cameras import Cameras, orbit_cameras, random_cameras
from dreambooth3d.config.distillation import DistillConfig, InitNerfConfig, RefineNerfConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import CollapseError, GuardError
from dreambooth3d.images import sheet
from dreambooth3d.nerf.field.average import RunningAverage
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.photo_cameras.heading import ViewLogits
from dreambooth3d.nerf.photo_cameras.photo_targets import PhotoTargets, Symmetry
from dreambooth3d.nerf.photo_cameras.targets import TargetPixels, TargetViews
from dreambooth3d.nerf.rendering.sampling import DenseSampler, make_sampler
from dreambooth3d.nerf.rendering.shading import draw_shading
from dreambooth3d.nerf.rendering.volume import Rendering, render_images, render_rays
from dreambooth3d.nerf.training import losses
from dreambooth3d.nerf.training.aside import moment, sample_aside
from dreambooth3d.nerf.training.guards import Collapse, Guards, Ledger, Likeness, Look
from dreambooth3d.nerf.training.view_loss import Guidance, ViewBatch, view_loss
from dreambooth3d.parallel import ALONE, Team
from dreambooth3d.runtime import ResumePoint, Runtime, optimizer_state, restore_optimizer

PREVIEW_VIEWS = 8
PREVIEW_SIZE = 64
PHOTO_TARGET_SIZE = 64
SCALARS_EVERY = 10
RAMP_SHARE = 0.2
OCCUPANCY_WARMUP = 32
"""Steps before empty space is skipped, so that the field may first grow anywhere."""
RETRY_SEED_STRIDE = 100_003
ADAM_BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-15
logger = logging.getLogger(__name__)


def distil(
    guidance: Guidance,
    config: DistillConfig,
    seed: int,
    runtime: Runtime,
    init: RadianceField | None = None,
    reconstruction: PseudoViews | None = None,
    photos: SubjectPhotos | None = None,
    view_logits: ViewLogits | None = None,
    likeness: Likeness | None = None,
    team: Team = ALONE,
) -> RadianceField:
    """Train a radiance field by score distillation.

    Args:
        guidance: judges renders.
        config: the stage. A field without `init` needs an `InitNerfConfig`; `reconstruction` a `RefineNerfConfig`.
        seed: of cameras, backgrounds, light, jitter and the field's initial values.
        runtime: log, device, resumable state, stop signal. A killed run continues from its state; after a stop signal
            the state is kept as well, so that a re-run goes on where this one ended.
        init: a field to continue from.
        reconstruction: pseudo views to reconstruct alongside.
        photos: the subject's photos, to reconstruct alongside once their cameras have been found; those whose subject
            cannot be told from the background are left out.
        view_logits: how a scorer sees the subject's views; corrects the field's heading when cameras are searched, and
            counts fronts for the guards.
        likeness: how alike the same scorer finds views and the photos; for the guards.
        team: shares each step's views among processes; the others run `follow`.

    Returns:
        The field with previews on white. Its record holds the metrics `steps`, `seconds`, `ms_per_step`, `opacity`,
        `collapse_retries`, `converged`, `interrupted`, `peak_memory_mib` and `guards/<name>_trips`, the series
        `guards/<name>`, and what the guards did as the parameter `guard_events`.

    Raises:
        CollapseError: a guard that tries again tripped (by default: the field became empty, full or NaN), also with
            `config.collapse_retries` other seeds.
        GuardError: a guard that stops the run tripped.
        ValueError: `config` does not fit `init` or `reconstruction`.
    """
    _check_arguments(config, init, reconstruction)
    resume = runtime.resume_point("distil")
    state = resume.load()
    first_attempt, spent = (int(state["attempt"]), int(state["spent_steps"])) if state else (0, 0)
    ledger = Ledger.from_state(state["guards"]["ledger"]) if state else Ledger()
    begin = partial(
        Trainer,
        guidance,
        config,
        seed,
        runtime,
        resume,
        init,
        reconstruction,
        photos,
        view_logits,
        likeness,
        ledger,
        team,
    )
    for attempt in range(first_attempt, config.collapse_retries + 1):
        trainer = begin(attempt=attempt, spent_steps=spent)
        if state is not None:
            trainer.restore(state)
            state = None
        try:
            field = trainer.run()
            team.share(None)
            return field
        except GuardError:
            resume.clear()
            raise
        except Collapse as collapse:
            resume.clear()
            step, reason, remedy = trainer.step, collapse.reason, collapse.remedy
            spent += step
            trainer.guards.note(collapse.event, step, "tried again")
            logger.warning("%s: the field %s at step %d (attempt %d)", runtime.log.name, reason, step, attempt + 1)
    tried = f", also with {config.collapse_retries} other seed(s)" if config.collapse_retries else ""
    raise CollapseError(f"{runtime.log.name}: the field {reason} at step {step}{tried}. {remedy}.")


def follow(team: Team, guidance: Guidance, config: DistillConfig, init: RadianceField | None = None) -> None:
    """Do a process' share of another's `distil`, until that one is done.

    Args:
        guidance: like the leader's: the same model, prompt, config and seed.
        config: the stage's.
        init: the stage's field to continue from.
    """
    field = build_field(config, 0, team.device, init)
    jitter = torch.Generator(team.device).manual_seed(team.rank)
    sampler = make_sampler(config.render, team.device)
    parameters = list(field.parameters())
    while (batch := team.share()) is not None:
        team.copy_from_leader(field)
        field.zero_grad(set_to_none=True)
        field.occupancy.mark_changed()
        loss, _ = view_loss(field, batch, guidance, config, sampler, jitter, team)
        loss.backward()
        team.sum_gradients(parameters)


def _check_arguments(config: DistillConfig, init: RadianceField | None, pseudo: PseudoViews | None) -> None:
    """Refuse combinations that would silently ignore an argument."""
    if init is None and not isinstance(config, InitNerfConfig):
        raise ValueError("distil: without init, config must be an InitNerfConfig, which says what field to build.")
    if pseudo is not None and not isinstance(config, RefineNerfConfig):
        raise ValueError("distil: reconstruction needs a RefineNerfConfig, which says how much it weighs.")


@dataclass(frozen=True)
class DrawnTarget:
    """Pixels of target views: rays (rays, 3), what is to be seen along them, and what it weighs."""

    prefix: str
    origins: Tensor
    directions: Tensor
    target: TargetPixels
    color_weight: float
    silhouette_weight: float


@dataclass
class Trainer:
    """One attempt at a stage: the field, its optimiser, and the position in the schedule.

    Its time series begin after the `spent_steps` of the attempts that were given up, whose points stay: a tracker has
    received them already.
    """

    guidance: Guidance
    config: DistillConfig
    seed: int
    runtime: Runtime
    resume: ResumePoint
    init: RadianceField | None
    pseudo: PseudoViews | None
    photos: SubjectPhotos | None
    view_logits: ViewLogits | None
    likeness: Likeness | None
    ledger: Ledger
    team: Team
    attempt: int
    spent_steps: int
    step: int = 0
    unchanged_checks: int = 0
    seconds_before: float = 0.0
    previews: Rendering | None = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        """Build the field and all randomness from the seed; each attempt has its own."""
        seed, device = self.seed + RETRY_SEED_STRIDE * self.attempt, self.runtime.device
        wanted = self.pseudo is not None and self.config.reconstruction_weight > 0
        self.targets = TargetViews.of_pseudo_views(self.pseudo, device) if wanted else None
        self.photo_targets = self._photo_targets()
        self.guards = Guards(
            self.config.guards,
            self.runtime.log.name,
            self.attempt,
            self.ledger,
            view_logits=self.view_logits,
            likeness=self.likeness,
            photos=self.photos,
        )
        self.field = build_field(self.config, seed, device, self.init)
        self.generator = torch.Generator().manual_seed(seed)
        self.jitter = torch.Generator(device).manual_seed(seed + 1)
        self.average = self._running_average()
        self.sampler = make_sampler(self.config.render, device)
        self.optimizer = torch.optim.Adam(
            self.field.parameters(), self.config.learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=True
        )
        self.started = self.window_started = time.monotonic()
        self.window_steps = 0

    def _photo_targets(self) -> PhotoTargets | None:
        """The photos as targets, where that is wanted and possible."""
        config = self.config.photos
        if self.photos is None or config.weight == 0:
            return None
        views = TargetViews.of_photos(self.photos, PHOTO_TARGET_SIZE, self.runtime.device)
        if views is None:
            return None
        symmetry = None if self.init is None else Symmetry.of(self.init.record)
        return PhotoTargets(views, config, self.config.cameras, self.view_logits, symmetry, fresh=self.init is None)

    def _running_average(self) -> RunningAverage | None:
        """The running average of the field, where that is wanted."""
        decay = self.config.average_decay
        return RunningAverage(self.field, decay) if decay > 0 else None

    @property
    def shown(self) -> Field:
        """The field as it is looked at: the running average, or as the last step left it."""
        return self.field if self.average is None else self.average.module

    @property
    def progress(self) -> float:
        """Position in the stage, in [0, 1]."""
        return self.step / self.config.steps

    @property
    def seconds(self) -> float:
        """Time spent on this attempt, before an interruption included."""
        return self.seconds_before + time.monotonic() - self.started

    def run(self) -> RadianceField:
        """Train to the end, to convergence or until asked to stop."""
        config = self.config
        with tqdm(
            total=config.steps,
            initial=self.step,
            desc=self.runtime.log.name,
            disable=not self.runtime.progress,
            unit="step",
        ) as bar:
            while self.step < config.steps and not self.converged and not self.interrupted:
                figures = self.train_step()
                bar.update()
                if self.step % SCALARS_EVERY == 0 or self.step == 1:
                    self._log(figures, bar)
                if self.step % config.check_every == 0 and self.step < config.steps:
                    self._check()
                self.interrupted = self.runtime.should_stop() and self.step < config.steps
                if self.interrupted or self.resume.due():
                    self.resume.save(self.state())
        return self._finish()

    @property
    def converged(self) -> bool:
        """Whether the previews have stopped changing for long enough."""
        return 0 < self.config.convergence_patience <= self.unchanged_checks

    def train_step(self) -> dict[str, Tensor | float]:
        """One optimiser step; returns the parts of its loss."""
        self._update_occupancy()
        self._follow_photos()
        self._set_learning_rate()
        loss, figures = self._loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.team.sum_gradients(self.field.parameters())
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.field)
        if self.photo_targets is not None:
            self.photo_targets.improve()
        self.step += 1
        self.window_steps += 1
        return figures

    def _log(self, figures: Mapping[str, Tensor | float], bar: tqdm) -> None:
        """Append to the series, with the mean time per step since the last call."""
        values = {name: float(value) for name, value in figures.items()}
        self.guards.watch(values.values(), self.step)
        now, grid = time.monotonic(), self.field.occupancy
        values["ms_per_step"] = 1e3 * (now - self.window_started) / self.window_steps
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        values["density_max"] = grid.density.max().item()
        values["occupied_share"] = grid.occupied.float().mean().item()
        self.window_started, self.window_steps = now, 0
        self._log_scalars(**values)
        bar.set_postfix(opacity=f"{values['opacity']:.3f}")

    def _log_scalars(self, **values: float) -> None:
        """Append to the series at the present step of all attempts."""
        self.runtime.log.scalars(self.spent_steps + self.step, **values)

    def _set_learning_rate(self) -> None:
        """Exponential decay between the two configured rates."""
        config = self.config
        rate = config.learning_rate * (config.final_learning_rate / config.learning_rate) ** self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _update_occupancy(self) -> None:
        """Look where the field has density; a fresh field counts as occupied everywhere at first."""
        warm = self.init is not None or self.step >= OCCUPANCY_WARMUP
        if warm and self.step % self.config.render.occupancy_every == 0:
            self._look_for_density(self.field)

    def _follow_photos(self) -> None:
        """Search the photos' cameras if it is time; that may turn the field."""
        if self.photo_targets is not None:
            self._turned(self.photo_targets.follow(self.shown, self.progress))

    def _turned(self, angle_deg: float) -> None:
        """The shown field was turned: turn the trained one if it is another, and look where density is now."""
        if angle_deg != 0:
            if self.average is not None:
                self.field.turn_by(angle_deg)
            self._look_for_density(self.field)

    def _look_for_density(self, field: Field) -> None:
        field.occupancy.update(field.density, self.config.render.occupancy_threshold, self.generator)

    def _loss(self) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The step's loss, and its parts for the log."""
        batch = self.team.share(self._views())
        self.team.copy_from_leader(self.field)
        # Drawn before, and sampled after guidance is under way: the host waits for the samples only.
        targets = self._drawn_targets()
        ready = moment(self.runtime.device) if targets else None
        loss, figures = view_loss(self.field, batch, self.guidance, self.config, self.sampler, self.jitter, self.team)
        parts = {}
        if self.config.regularizers.smoothness > 0:
            parts["smoothness"] = (self.config.regularizers.smoothness, losses.smoothness(self.field, self.generator))
        for target in targets:
            parts |= self._reconstruction(target, ready)
        for name, (weight, part) in parts.items():
            figures[name] = part.detach()
            figures["loss"] = figures["loss"] + weight * figures[name]
            loss = loss + weight * part
        return loss, figures

    def _views(self) -> ViewBatch:
        """What guidance will judge in this step, on the CPU.

        Sparsity and opacity ramp up on a fresh field, lest they kill the blob before guidance has shaped it.
        """
        cameras = self._cameras()
        background = self._random_background()
        shading = draw_shading(self.config.shading, self.progress, cameras, self.generator)
        ramp = 1.0 if self.init is not None else min(1.0, self.progress / RAMP_SHARE)
        return ViewBatch(cameras, background, shading, self.progress, ramp)

    def _cameras(self) -> Cameras:
        """From where this step's renders are judged."""
        count = self.config.views_per_step
        if getattr(self.config, "camera_poses", "random") == "pseudo_views" and self.pseudo is not None:
            chosen = torch.randperm(len(self.pseudo.cameras), generator=self.generator)[:count]
            return self.pseudo.cameras[chosen]
        return random_cameras(count, self.generator, **self.config.cameras.model_dump())

    def _random_background(self) -> Tensor | None:
        """(views, 3) random plain colours with the configured probability, else None for the field's own."""
        if torch.rand(1, generator=self.generator).item() >= self.config.random_background_probability:
            return None
        low, high = self.config.random_background_range
        drawn = torch.rand(self.config.views_per_step, 3, generator=self.generator)
        return low + (high - low) * drawn

    def _drawn_targets(self) -> list[DrawnTarget]:
        """Random pixels of random target views of each kind: pseudo views, photos, mirrored photos.

        As many rays as `render.size` images would have, but at the targets' own resolution, so that their detail
        arrives also when few rays are rendered.
        """
        drawn, photos, found = [], self.config.photos, self.photo_targets

        def draw(prefix: str, targets: TargetViews, views: int, color_weight: float, outline_weight: float) -> None:
            rays = targets.draw(views, self.config.render.size**2, self.generator)
            drawn.append(DrawnTarget(prefix, *rays, color_weight, outline_weight))

        if self.targets is not None:
            weights = self.config.reconstruction_weight, self.config.silhouette_weight
            draw("", self.targets, self.config.reconstruction_views, *weights)
        if found is not None and found.found is not None:
            weights = (found.weight * weight for weight in (photos.weight, photos.silhouette_weight))
            draw("photo_", found.found, photos.views_per_step, *weights)
        if found is not None and found.mirrored is not None:
            color, outline = found.mirror_weights
            weights = color * photos.weight, outline * photos.silhouette_weight
            draw("mirror_", found.mirrored, photos.views_per_step, *weights)
        return drawn

    def _reconstruction(self, drawn: DrawnTarget, ready: torch.cuda.Event | None) -> dict[str, tuple[float, Tensor]]:
        """(weight, value) of the reconstruction losses of pixels whose rays were computed at the moment `ready`."""
        rays, target = (drawn.origins, drawn.directions), drawn.target
        samples = sample_aside(*rays, self.sampler, self.field.occupancy, self.jitter, ready)
        shown = render_rays(self.field, *rays, sampler=self.sampler, generator=self.jitter, samples=samples)
        color = shown.color if target.gain is None else target.gain[:, None] * shown.color
        color = losses.reconstruction(color, shown.opacity, target.color, target.background)
        shape = losses.silhouette(shown.opacity, target.mask, target.trusted)
        return {
            f"{drawn.prefix}reconstruction": (drawn.color_weight, color),
            f"{drawn.prefix}silhouette": (drawn.silhouette_weight, shape),
        }

    def _check(self) -> None:
        """Render previews, count checks without a change, and let the guards look."""
        previous = self.previews
        self._preview()
        self._log_scalars(preview_opacity=self.previews.opacity.mean().item())
        if previous is not None:
            self._count_unchanged((self.previews.color - previous.color).abs().mean().item())
        self._guard()

    def _count_unchanged(self, change: float) -> None:
        """Count checks in a row whose previews differ from those before by too little, in the mean."""
        settled = self.photo_targets is None or self.photo_targets.complete
        unchanged = settled and change < self.config.convergence_tolerance
        self.unchanged_checks = self.unchanged_checks + 1 if unchanged else 0
        self._log_scalars(preview_change=change)

    def _preview(self) -> None:
        """Render and log previews."""
        self.previews = render_previews(self.shown, self.config)
        self.runtime.log.image("previews", sheet(self.previews.color, columns=PREVIEW_VIEWS))

    def _guard(self) -> None:
        """Let the guards look at the previews, log what they read, and act; once per step."""
        if self.guards.looked_at == self.step:
            return
        threshold = self.config.render.occupancy_threshold
        progress = 1.0 if self.converged else self.progress
        look = Look(self.previews, preview_cameras(), self.shown, threshold, self.step, progress)
        readings = self.guards.read(look)
        self._log_scalars(**{f"guards/{reading.guard}": reading.value for reading in readings})
        self.guards.act(readings, self.step, self.interrupted)

    def _finish(self) -> RadianceField:
        """Final previews and metrics. The resumable state goes on success and stays after an interruption."""
        self._require_photo_overlap()
        if self.photo_targets is not None:
            self._turned(self.photo_targets.face_front(self.shown))
        self._look_for_density(self.shown)
        self._preview()
        self._guard()
        log = self.runtime.log
        log.metrics(
            steps=self.step,
            seconds=self.seconds,
            ms_per_step=1e3 * self.seconds / max(self.step, 1),
            opacity=self.previews.opacity.mean().item(),
            collapse_retries=self.attempt,
            converged=self.converged,
            interrupted=self.interrupted,
            peak_memory_mib=peak_memory_mib(self.runtime.device),
        )
        self.ledger.report(log)
        if self.photo_targets is not None:
            self.photo_targets.report(self.shown, log)
        if not self.interrupted:
            self.resume.clear()
        return RadianceField(
            state=self.shown.state(),
            config=self.field.config.model_dump(),
            previews=self.previews.color.cpu(),
            steps=self.step + (self.init.steps if self.init is not None else 0),
            record=log.record(),
        )

    def _require_photo_overlap(self) -> None:
        """Give a fresh field up that does not fit the photos, while there are attempts left."""
        last = self.attempt >= self.config.collapse_retries
        if last or self.interrupted or self.init is not None or self.photo_targets is None:
            return
        overlap, least = self.photo_targets.overlap, self.config.photos.min_overlap
        if overlap is not None and overlap < least:
            reason = f"does not fit the photos (mean overlap {overlap:.2f}, at least {least} is wanted)"
            raise Collapse(reason, "Lower photos.min_overlap", f"photo_overlap {overlap:.3g} < {least:.3g}")

    def state(self) -> dict[str, Any]:
        """Everything needed to continue."""
        state: dict[str, Any] = {
            "attempt": self.attempt,
            "spent_steps": self.spent_steps,
            "step": self.step,
            "seconds": self.seconds,
            "unchanged_checks": self.unchanged_checks,
            "log": self.runtime.log.state(),
            "guards": self.guards.state(),
            "field": dict(self.field.state_dict()),
            "optimizer": optimizer_state(self.optimizer),
            "random": {
                "generator": self.generator.get_state(),
                "jitter": self.jitter.get_state(),
                "global": torch.get_rng_state(),
            },
        }
        if self.runtime.device.type == "cuda":
            state["random"]["cuda"] = torch.cuda.get_rng_state(self.runtime.device)
        if self.average is not None:
            state["average"] = self.average.state()
        if self.previews is not None:
            state["previews"] = {name: getattr(self.previews, name) for name in ("color", "opacity", "depth")}
        if self.photo_targets is not None:
            state["photos"] = self.photo_targets.state()
        if hasattr(self.guidance, "state"):
            state["guidance"] = self.guidance.state()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.step, self.unchanged_checks = int(state["step"]), int(state["unchanged_checks"])
        self.seconds_before = float(state["seconds"])
        self.runtime.log.restore(state["log"])
        self.guards.restore(state["guards"])
        self.field.load_state_dict(state["field"])
        self.field.occupancy.mark_changed()
        if self.average is not None:
            self.average.restore(state["average"])
        restore_optimizer(self.optimizer, state["optimizer"])
        random = state["random"]
        self.generator.set_state(random["generator"])
        self.jitter.set_state(random["jitter"])
        torch.set_rng_state(random["global"])
        if "cuda" in random and self.runtime.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.runtime.device)
        if "previews" in state:
            device = self.runtime.device
            self.previews = Rendering(**{key: value.to(device) for key, value in state["previews"].items()})
        if "photos" in state and self.photo_targets is not None:
            self.photo_targets.restore(state["photos"])
        if "guidance" in state and hasattr(self.guidance, "restore"):
            self.guidance.restore(state["guidance"])


def build_field(config: DistillConfig, seed: int, device: torch.device, init: RadianceField | None) -> Field:
    """A field on the device: that of `init`, or a fresh one with random values drawn from `seed`."""
    if init is not None:
        return Field.from_artifact(init, device)
    settings: FieldConfig = config.field
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Field(settings, device, config.render.occupancy_resolution)


def preview_cameras() -> Cameras:
    """Eight cameras at evenly spread azimuths from 0."""
    return orbit_cameras(torch.arange(PREVIEW_VIEWS, dtype=torch.float32) * (360.0 / PREVIEW_VIEWS))


def render_previews(model: Field, config: DistillConfig) -> Rendering:
    """The eight views on white."""
    cameras = preview_cameras().to(model.occupancy.density.device)
    return render_images(model, cameras, size=PREVIEW_SIZE, sampler=DenseSampler(config.render.samples_per_ray))


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far: of the GPU on CUDA, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
