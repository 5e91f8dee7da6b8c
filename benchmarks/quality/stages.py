"""The pipeline's stages in one process: those that several methods share are computed once."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.artifacts import (
    POSE_FACTS,
    DreamBoothCheckpoint,
    EvaluationReport,
    GroundTruth,
    PseudoViews,
    RadianceField,
    SubjectPhotos,
)
from dreambooth3d.cameras import TURNTABLE_FOV_Y_DEG, spread_cameras, turntable_cameras, wrap_degrees
from dreambooth3d.config.base import Section
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune, finetune_multiview
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.sampling.img2img import RenderedViews, pseudo_views
from dreambooth3d.evaluation.ceiling import fit_true_views
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.report import evaluate
from dreambooth3d.evaluation.selection import choose, select
from dreambooth3d.evaluation.views import ViewScores, name_photo_views
from dreambooth3d.nerf.rendering.volume import render_field
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.photos.check import check_photos
from dreambooth3d.photos.dataset import dataset_hash, ground_truth
from dreambooth3d.photos.silhouettes import locate_photos
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.runtime import Runtime
from dreambooth3d.toybox.subjects import photo_cameras, photo_exposures, write_subject

SHOWN_FRAMES = (0, 9, 18, 27)
"""Turntable frames of the kept previews: front, left, back and right side."""


@dataclass(frozen=True)
class Stage:
    """One finished stage.

    Attributes:
        name: of the pipeline's step.
        value: its artifact.
        seconds: how long it took when it was computed.
        peak_mib: GPU memory at its peak, 0 on a CPU.
    """

    name: str
    value: Any
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Outcome:
    """What is kept of one run.

    Attributes:
        metrics: of the evaluation.
        seconds, peak_mib: by stage; a stage that was shared counts in full for every method that needs it.
        notes: plain values: which checkpoints were chosen, retries, guard trips.
        views: (4, 3, h, w) front, left, back and right side of the asset on white.
    """

    metrics: dict[str, float]
    seconds: dict[str, float]
    peak_mib: dict[str, float]
    notes: dict[str, Any]
    views: Tensor


@dataclass
class Subject:
    """One subject with one seed: runs methods, and remembers stages.

    Attributes:
        name: of a toybox subject.
        seed: of everything random.
        device: where to compute.
        work: folder for photos and checkpoints.
    """

    name: str
    seed: int
    device: torch.device
    work: Path
    _stages: dict[str, Stage] = field(default_factory=dict)
    _used: list[Stage] = field(default_factory=list)
    _notes: dict[str, Any] = field(default_factory=dict)
    _given: tuple[str, ...] = ()

    def run(self, config: TrainingConfig | CeilingConfig, given: tuple[str, ...] = ()) -> Outcome:
        """All stages of a method, from the photos to the evaluation, with what a diagnosis gives it from the truth."""
        self._used, self._notes, self._given = [], {}, given
        config = config.model_copy(update={"photos": self._photos_config()})
        if isinstance(config, CeilingConfig):
            asset = coarse = self._ceiling(config)
        else:
            coarse, asset = self._fields(config)
        report = self._report(asset, coarse, config)
        stages = {stage.name: stage for stage in self._used}
        return Outcome(
            metrics=dict(report.metrics),
            seconds={name: stage.seconds for name, stage in stages.items()},
            peak_mib={name: stage.peak_mib for name, stage in stages.items()},
            notes=self._notes | _notes(stages),
            views=self._views(asset, config),
        )

    def _once(self, name: str, compute: Callable[[Runtime], Any], *inputs: object) -> Any:
        """A stage's artifact, computed unless its inputs are known already."""
        key = json.dumps([name, self._given, *(_plain(value) for value in inputs)], sort_keys=True, default=str)
        if key not in self._stages:
            # By the key: an interrupted stage's state must not be taken for another method's.
            digest = hashlib.sha256(key.encode()).hexdigest()[:12]
            folder = self.work / f"{self.name}-{self.seed}" / f"{name}-{digest}"
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            started = time.monotonic()
            value = compute(Runtime(StepLog(name), folder, self.device, progress=False))
            peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0
            self._stages[key] = Stage(name, value, time.monotonic() - started, peak)
        self._used.append(self._stages[key])
        return self._stages[key].value

    def _photos_config(self) -> PhotosConfig:
        folder = self.work / "photos"
        if not (folder / self.name / "ground_truth.yaml").exists():
            write_subject(self.name, folder)
        return PhotosConfig(dir=str(folder / self.name))

    def _photos(self, config: TrainingConfig | CeilingConfig) -> SubjectPhotos:
        def compute(runtime: Runtime) -> SubjectPhotos:
            checked = check_photos(config.photos, dataset_hash(config.photos), runtime)
            located = locate_photos(name_photo_views(checked, ClipScorer.load(config.scorers.selector)))
            return with_truth(located, self.name, self._given)

        return self._once("validate_photos", compute, config.photos, self._given)

    def _truth(self, config: TrainingConfig | CeilingConfig) -> GroundTruth:
        return ground_truth(config.photos)

    def _fields(self, config: TrainingConfig) -> tuple[RadianceField, RadianceField]:
        """The first field, and the one that the recipe makes of it."""
        photos, seed, recipe = self._photos(config), self.seed, config.recipe
        scorer = ClipScorer.load(config.scorers.selector, self.device)
        views = ViewScores(scorer, photos.class_noun, photos.images)
        tuning = (config.base_model, config.finetune_dreambooth)
        checkpoints = self._once(
            "finetune_dreambooth",
            lambda runtime: finetune(photos, resolve(config.base_model), config.finetune_dreambooth, seed, runtime),
            *tuning,
        )
        # Scores do not depend on what is forced, so they are measured once.
        free = config.select_checkpoints.model_copy(update={"partial_step": None, "full_step": None})
        measured = self._once(
            "select_checkpoints",
            lambda runtime: select(checkpoints, photos, scorer, free, seed, runtime),
            *tuning,
            free,
        )
        partial, full = (
            checkpoints.checkpoints[step] for step in choose(measured.scores, config.select_checkpoints)[:2]
        )
        self._notes = {"partial_step": partial.step, "full_step": full.step}
        start = full if recipe.init_from == "full" else partial
        first, prompt = (*tuning, start.step, config.init_nerf), photos.instance_prompt
        coarse = self._once(
            "init_nerf",
            lambda runtime: distil(
                ScoreDistillation.from_checkpoint(start, prompt, config.init_nerf.guidance, seed, self.device),
                config.init_nerf, seed, runtime, photos=photos, view_logits=views, likeness=views.likeness,
            ),
            *first,
        )  # fmt: skip
        if recipe.refine_with == "none":
            return coarse, coarse
        second = (*first, full.step, config.generate_pseudo_views)
        pseudo = self._once(
            "generate_pseudo_views", lambda runtime: self._pseudo_views(coarse, full, photos, config, runtime), *second
        )
        guide = full
        if recipe.multiview:
            guide = self._once(
                "finetune_multiview",
                lambda runtime: finetune_multiview(partial, pseudo, photos, config.finetune_multiview, seed, runtime),
                *second,
                partial.step,
                config.finetune_multiview,
            )
        guide = full if recipe.refine_with == "full" else guide
        asset = self._once(
            "refine_nerf",
            lambda runtime: distil(
                ScoreDistillation.from_checkpoint(guide, prompt, config.refine_nerf.guidance, seed, self.device),
                config.refine_nerf, seed, runtime, coarse, pseudo, photos, views, views.likeness,
            ),
            *second,
            recipe,
            partial.step,
            config.finetune_multiview,
            config.refine_nerf,
        )  # fmt: skip
        return coarse, asset

    def _pseudo_views(
        self,
        coarse: RadianceField,
        full: DreamBoothCheckpoint,
        photos: SubjectPhotos,
        config: TrainingConfig,
        runtime: Runtime,
    ) -> PseudoViews:
        settings = config.generate_pseudo_views
        cameras = spread_cameras(settings.count, settings.elevations_deg)
        renders = render_field(
            coarse,
            cameras,
            size=settings.render.size,
            samples_per_ray=settings.render.samples_per_ray,
            background=torch.tensor(settings.background),
            device=self.device,
        )
        views = RenderedViews(renders.color, renders.opacity, cameras)
        return pseudo_views(views, full, photos, settings, self.seed, runtime)

    def _ceiling(self, config: CeilingConfig) -> RadianceField:
        truth, settings = self._truth(config), config.fit_true_views
        return self._once(
            "fit_true_views", lambda runtime: fit_true_views(truth, settings, self.seed, runtime), settings
        )

    def _report(
        self, asset: RadianceField, coarse: RadianceField, config: TrainingConfig | CeilingConfig
    ) -> EvaluationReport:
        photos, truth = self._photos(config), self._truth(config)
        judge = ClipScorer.load(config.scorers.judge)
        return self._once(
            "evaluate",
            lambda runtime: evaluate(asset, coarse, photos, truth, judge, config.evaluate, runtime),
            config.evaluate,
            id(asset),
            id(coarse),
        )

    def _views(self, asset: RadianceField, config: TrainingConfig | CeilingConfig) -> Tensor:
        settings = config.evaluate
        rendering = render_field(
            asset,
            turntable_cameras()[list(SHOWN_FRAMES)],
            size=settings.size,
            samples_per_ray=settings.samples_per_ray,
            background="white",
            device=self.device,
        )
        return rendering.color.float().cpu().clamp(0, 1)


def with_truth(photos: SubjectPhotos, name: str, given: tuple[str, ...]) -> SubjectPhotos:
    """The photos with their true cameras, or equally exposed, for a diagnosis of what is lost by not knowing either."""
    if "exposures" in given:
        images = [image / gain for image, gain in zip(photos.images, photo_exposures(name), strict=True)]
        photos = replace(photos, images=tuple(image.clamp(0, 1) for image in images))
    if "cameras" in given:
        true = photo_cameras(name)
        # Photos are fitted with one field of view; the distance at which it shows the subject as large takes its place.
        half = torch.tan(torch.deg2rad(true.fov_y_deg) / 2) / math.tan(math.radians(TURNTABLE_FOV_Y_DEG) / 2)
        values = (wrap_degrees(true.azimuth_deg), true.elevation_deg, true.distance * half)
        facts = photos.facts.assign(**{key: value.tolist() for key, value in zip(POSE_FACTS, values, strict=True)})
        photos = replace(photos, facts=facts)
    return photos


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, Section) else value


def _notes(stages: dict[str, Stage]) -> dict[str, Any]:
    """What each distillation reports about itself."""
    notes: dict[str, Any] = {}
    for name in ("init_nerf", "refine_nerf", "fit_true_views"):
        if name in stages:
            notes |= {f"{name}/{key}": value for key, value in _of_record(stages[name].value.record).items()}
    return notes


def _of_record(record: StepRecord) -> dict[str, Any]:
    kept = (
        "steps",
        "collapse_retries",
        "photos_found",
        "photo_overlap",
        "mirror_error",
        "mirror_overlap",
        "ms_per_step",
    )
    return {name: value for name, value in record.metrics.items() if name in kept or name.endswith("_trips")} | {
        name: value for name, value in record.params.items() if name == "guard_events" or name.startswith("photo_")
    }
