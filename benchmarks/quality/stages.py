"""The recipe in one process: stages that several methods share are computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.quality.sources import PromptSource, Source, Toybox
from dreambooth3d import recipe, stages
from dreambooth3d.artifacts import (
    AssetBundle,
    CheckpointChoice,
    CheckpointSet,
    DreamBoothCheckpoint,
    RadianceField,
    SubjectPhotos,
)
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.finetuning import SelectConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.evaluation.selection import choose
from dreambooth3d.in_process import FinishedStage, InProcess
from dreambooth3d.kinds import render_asset
from dreambooth3d.record import StepRecord
from dreambooth3d.runtime import Runtime

SHOWN_FRAMES = (0, 9, 18, 27)
"""Turntable frames of the kept previews: front, left, back and right side."""


@dataclass(frozen=True)
class Outcome:
    """What is kept of one run.

    Attributes:
        metrics: of the evaluation.
        seconds, peak_mib: by stage; a stage that was shared counts in full for every method that needs it.
        notes: plain values: which checkpoints were chosen, retries, guard trips.
        views: (4, 3, h, w) front, left, back and right side of the asset on white.
        exported: the folder of the exported files, which goes with the subject's; None without an export.
    """

    metrics: dict[str, float]
    seconds: dict[str, float]
    peak_mib: dict[str, float]
    notes: dict[str, Any]
    views: Tensor
    exported: Path | None = None


@dataclass
class Subject:
    """One subject with one seed: runs methods, and remembers stages.

    Attributes:
        name: of the subject.
        seed: of everything random.
        device: where to compute.
        work: folder for photos and checkpoints.
        source: of its photos; the toybox' subject of that name if None.
        exports: whether assets are exported, and their meshes measured.
    """

    name: str
    seed: int
    device: torch.device
    work: Path
    source: Source | None = None
    exports: bool = False
    _source: Source = field(init=False)
    _stages: InProcess = field(init=False)

    def __post_init__(self) -> None:
        self._source = self.source or Toybox(self.name)
        self._stages = InProcess(self.work / f"{self.name}-{self.seed}", self.device, progress=False)

    def run(self, config: TrainingConfig | CeilingConfig | TextTo3dConfig, given: tuple[str, ...] = ()) -> Outcome:
        """All stages of a method, from the photos to the evaluation, with what a diagnosis gives it from the truth."""
        self._stages.used.clear()
        made = self._made(config, given)
        finished = {stage.name: stage for stage in self._stages.used}
        return Outcome(
            metrics={
                **made.report.metrics,
                **self._source.score(made.asset, config.evaluate, self.device),
                **_of_mesh(made.bundle),
            },
            seconds={name: stage.seconds for name, stage in finished.items()},
            peak_mib={name: stage.peak_mib for name, stage in finished.items()},
            notes=_notes(finished, made.choice),
            views=self._views(made.asset, config),
            exported=None if made.bundle is None else made.bundle.folder,
        )

    def _made(self, config: TrainingConfig | CeilingConfig | TextTo3dConfig, given: tuple[str, ...]) -> recipe.Made:
        """What the method makes of the photos, or of the prompt."""
        config, run_stage = config.model_copy(update={"seed": self.seed}), partial(self._run_stage, given)
        if isinstance(config, TextTo3dConfig):
            return recipe.generate(cast(PromptSource, self._source).asked(config), run_stage)
        config = config.model_copy(update={"photos": self._source.photos(self.work / "photos", given)})
        if isinstance(config, CeilingConfig):
            return recipe.fit_truth(config, run_stage)
        return recipe.run(config.model_copy(update={"contexts": ()}), run_stage)

    def _run_stage(
        self, given: tuple[str, ...], name: str, stage: Callable[..., Any], /, *inputs: Any, **options: Any
    ) -> Any:
        """A stage as usual, but for what is given, what is shared between methods, and what no table asks for."""
        if stage is stages.validate_photos and given:
            return self._stages(name, self._validate_with_truth, *inputs, given)
        if stage is stages.select_checkpoints:
            return self._select(name, *inputs)
        if stage is stages.export_asset and not self.exports:
            return None
        return self._stages(name, stage, *inputs, **options)

    def _validate_with_truth(self, runtime: Runtime, *inputs: Any) -> SubjectPhotos:
        """The stage `validate_photos` of a diagnosis, whose last input is what is given."""
        *usual, given = inputs
        return self._source.told(stages.validate_photos(runtime, *usual), given)

    def _select(
        self,
        name: str,
        checkpoints: CheckpointSet,
        photos: SubjectPhotos,
        selector: ScorerRef,
        config: SelectConfig,
        seed: int,
    ) -> tuple[DreamBoothCheckpoint, DreamBoothCheckpoint, CheckpointChoice]:
        """Scores do not depend on what is forced, so they are measured once."""
        free = config.model_copy(update={"partial_step": None, "full_step": None})
        *_, measured = self._stages(name, stages.select_checkpoints, checkpoints, photos, selector, free, seed)
        partial, full, reason = choose(measured.scores, config)
        chosen = replace(measured, partial_step=partial, full_step=full, reason=reason)
        return checkpoints.checkpoints[partial], checkpoints.checkpoints[full], chosen

    def _views(self, asset: RadianceField, config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> Tensor:
        settings = config.evaluate
        rendering = render_asset(
            asset,
            turntable_cameras()[list(SHOWN_FRAMES)],
            size=settings.size,
            samples_per_ray=settings.samples_per_ray,
            background="white",
            device=self.device,
        )
        return rendering.color.float().cpu().clamp(0, 1)


def without_export(run_stage: InProcess) -> Callable[..., Any]:
    """The same, without the stage whose files no table asks for."""

    def run(name: str, stage: Callable[..., Any], /, *inputs: Any, **options: Any) -> Any:
        return None if stage is stages.export_asset else run_stage(name, stage, *inputs, **options)

    return run


def _of_mesh(bundle: AssetBundle | None) -> dict[str, float]:
    """What the export has measured of its mesh; nothing where there is none."""
    measured = {} if bundle is None else bundle.record.metrics
    return {name: value for name, value in measured.items() if name.startswith("mesh/")}


def _notes(finished: Mapping[str, FinishedStage], choice: CheckpointChoice | None) -> dict[str, Any]:
    """Which checkpoints were chosen, and what each distillation reports about itself."""
    notes: dict[str, Any] = {}
    if choice is not None:
        notes = {"partial_step": choice.partial_step, "full_step": choice.full_step}
    for name in ("init_nerf", "refine_nerf", "fit_true_views"):
        if name in finished:
            notes |= {f"{name}/{key}": value for key, value in _of_record(finished[name].value.record).items()}
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
