"""A method's stages in one process: real ones, on tiny models; what methods share is computed once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks.family import personalised
from benchmarks.quality import plan, pool, stages
from benchmarks.quality.plan import Method, Run, load_config
from benchmarks.quality.sources import with_truth
from benchmarks.quality.stages import Subject
from dreambooth3d import stages as library
from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_FOV_Y_DEG, wrap_degrees
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.toybox import subjects
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import photo_azimuths_deg, photo_cameras, photo_exposures, subject_recipe
from operations.launch.checking import check_file
from tests.coarse import search_coarsely
from tests.evaluation.stand_ins import photos_of, write_tiny_clip
from tests.tiny_configs import shrunk
from tests.tiny_models import write_tiny_base_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(
    file
    for file in [*CONFIGS.glob("*.yaml"), *(CONFIGS / "bench").glob("*.yaml")]
    # Those of a prompt alone have no photos to begin with: tests/benchmarks/test_family.py.
    if not (file.stem.startswith("text_to_3d") or file.stem.endswith("generation"))
)
UNUSED = {"contexts", "photos", "export_asset"}
"""Sections of which the stages that run here know nothing."""


def subject_config(file: Path) -> TrainingConfig | CeilingConfig:
    """A preset; of one over many subjects, what each of them is trained by."""
    config = check_file(file)
    return getattr(config, "training", config)


def different(files: Sequence[Path]) -> list[Path]:
    """The first of all presets that are the same once they are small, such as one per orchestrator."""
    models = (Path("base"), Path("selector"), Path("judge"))
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(shrunk(subject_config(file), *models).model_dump_json(exclude=UNUSED), file)
    return list(first.values())


NAME = "corgi"
COUNTED = {
    "validate_photos": "check_photos", "finetune_dreambooth": "finetune", "select_checkpoints": "select",
    "init_nerf": "distil", "generate_pseudo_views": "pseudo_views", "finetune_multiview": "finetune_multiview",
    "refine_nerf": "distil", "evaluate": "evaluate",
}  # fmt: skip
"""What each stage of the library counts as."""


@dataclass
class Bench:
    """One tiny subject with tiny models; counts how often each stage is computed."""

    folder: Path
    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.models = (
            write_tiny_base_model(self.folder / "base"),
            write_tiny_clip(self.folder / "selector", size=32),
            write_tiny_clip(self.folder / "judge", size=24),
        )
        self.subject = Subject(NAME, 0, torch.device("cpu"), self.folder / "work")

    def counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return function(*arguments, **options)

        return call

    def run(self, config: TrainingConfig | CeilingConfig, **options: Any) -> stages.Outcome:
        self.calls.clear()
        return self.subject.run(shrunk(config, *self.models), **options)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Small photos, and a coarse search of their cameras."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "PHOTO_SIZE", 64)
        search_coarsely(patch)
        made = Bench(tmp_path_factory.mktemp("bench"))
        for stage, name in COUNTED.items():
            patch.setattr(library, stage, made.counting(name, getattr(library, stage)))
        yield made


@pytest.fixture(autouse=True)
def _shared_cache(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache of class images for all tests here."""
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(bench.folder / "cache"))


@pytest.mark.parametrize("file", different(FILES), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_preset_runs_from_photos_to_evaluation(file: Path, bench: Bench) -> None:
    config = subject_config(file)
    outcome = bench.run(config)
    assert {"psnr_fg", "mask_iou", "clip_i", "baseline_mean/psnr_fg"} <= set(outcome.metrics)
    assert all(math.isfinite(value) for name, value in outcome.metrics.items() if "psnr" in name)
    assert outcome.views.shape == (4, 3, 16, 16) and 0 <= outcome.views.min() <= outcome.views.max() <= 1
    expected = {"validate_photos", "load_ground_truth", "evaluate"}
    if isinstance(config, CeilingConfig):
        expected |= {"fit_true_views"}
    else:
        expected |= {"finetune_dreambooth", "select_checkpoints", "init_nerf"}
        recipe = config.recipe
        expected |= {"generate_pseudo_views", "refine_nerf"} if recipe.refine_with != "none" else set()
        expected |= {"finetune_multiview"} if recipe.multiview and recipe.refine_with != "none" else set()
        forced = config.select_checkpoints
        assert forced.full_step is None or outcome.notes["full_step"] == 4
        assert forced.partial_step is None or outcome.notes["partial_step"] == 2
    assert set(outcome.seconds) == set(outcome.peak_mib) == expected


ALONE = ("recipe.pseudo_views=false", "recipe.multiview=false", "recipe.refine_with=none")


def variant(*overrides: str) -> TrainingConfig:
    return load_config(Method("variant", "dreambooth3d", overrides))


def test_methods_that_differ_in_the_end_share_all_before_it(bench: Bench) -> None:
    first = bench.run(variant("init_nerf.learning_rate=0.011"))
    assert bench.calls["distil"] == 2 and bench.calls["evaluate"] == 1
    second = bench.run(variant("init_nerf.learning_rate=0.011", "refine_nerf.learning_rate=0.005"))
    assert bench.calls == {"distil": 1, "evaluate": 1}, "only the refinement and what judges it"
    assert second.seconds["init_nerf"] == first.seconds["init_nerf"], "a shared stage counts for each"
    assert second.metrics["coarse/psnr_fg"] == first.metrics["coarse/psnr_fg"]
    assert not torch.equal(second.views, first.views)
    again = bench.run(variant("init_nerf.learning_rate=0.011"))
    assert not bench.calls and again.metrics == first.metrics and torch.equal(again.views, first.views)


def test_kinds_of_assets_share_all_but_their_refinement_and_are_exported(bench: Bench) -> None:
    subject = Subject(NAME, 1, torch.device("cpu"), bench.folder / "kinds", exports=True)
    outcomes = {}
    for kind, method in personalised.KINDS.items():
        bench.calls.clear()
        outcomes[kind] = subject.run(shrunk(load_config(method), *bench.models))
        shared = kind == "field"
        assert bench.calls["finetune"] == bench.calls["pseudo_views"] == int(shared)
        assert bench.calls["distil"] == 1 + shared and bench.calls["evaluate"] == 1
    for outcome in outcomes.values():
        metrics = outcome.metrics
        assert outcome.exported is not None and (outcome.exported / "asset.glb").stat().st_size > 1000
        assert metrics["mesh/field_psnr"] > 0 and 0 <= metrics["mesh/field_iou"] <= 1
        assert personalised.aligned(metrics, "psnr_fg") == metrics["aligned/psnr_fg"]
        assert outcome.seconds["init_nerf"] == outcomes["field"].seconds["init_nerf"]
        assert "export_asset" in outcome.seconds
    assert len({outcome.metrics["psnr_fg"] for outcome in outcomes.values()}) == 3


def test_a_changed_stage_is_computed_with_all_behind_it(bench: Bench) -> None:
    bench.run(variant())
    bench.run(variant("init_nerf.learning_rate=0.012"))
    assert bench.calls == {"distil": 2, "pseudo_views": 1, "finetune_multiview": 1, "evaluate": 1}
    bench.run(variant(*ALONE, "finetune_dreambooth.learning_rate=0.0001"))
    assert bench.calls["finetune"] == bench.calls["select"] == 1 and bench.calls["check_photos"] == 0


def test_forced_checkpoints_share_the_scores(bench: Bench) -> None:
    bench.run(variant(*ALONE))
    for step in (2, 4):
        config = variant(*ALONE, "select_checkpoints.partial_step=40", "select_checkpoints.full_step=40")
        config = shrunk(config, *bench.models)
        forced = config.select_checkpoints.model_copy(update={"partial_step": step, "full_step": step})
        bench.calls.clear()
        outcome = bench.subject.run(config.model_copy(update={"select_checkpoints": forced}))
        assert outcome.notes["partial_step"] == outcome.notes["full_step"] == step
        assert bench.calls["finetune"] == bench.calls["select"] == 0


def test_what_is_given_from_the_truth_is_not_shared_with_other_methods(bench: Bench) -> None:
    usual = bench.run(variant(*ALONE))
    given = bench.run(variant(*ALONE), given=("cameras",))
    assert bench.calls["check_photos"] == bench.calls["finetune"] == bench.calls["distil"] == 1
    assert given.notes["init_nerf/photo_azimuths_deg"] != usual.notes.get("init_nerf/photo_azimuths_deg")


def subject_photos(size: int = 48) -> SubjectPhotos:
    photos = photos_of(*subjects.casual_photos(NAME, size))
    return replace(photos, facts=pd.DataFrame({"file": [f"{index:02d}.jpg" for index in range(5)]}))


def test_given_cameras_show_the_subject_as_large_as_the_photos() -> None:
    """The true cameras have other fields of view; silhouettes from the given ones match those of the photos."""
    given = with_truth(subject_photos(), NAME, ("cameras",)).cameras
    true = photo_cameras(NAME)
    torch.testing.assert_close(given.azimuth_deg, torch.tensor(photo_azimuths_deg(NAME)))
    torch.testing.assert_close(given.elevation_deg, true.elevation_deg)
    assert (given.fov_y_deg == TURNTABLE_FOV_Y_DEG).all() and (true.fov_y_deg != TURNTABLE_FOV_Y_DEG).all()
    masks = [render_views(subject_recipe(NAME), cameras, None, 48).mask.float() for cameras in (given, true)]
    both, either = torch.minimum(*masks).sum(dim=(1, 2)), torch.maximum(*masks).sum(dim=(1, 2))
    assert (both / either).min() > 0.95
    ratio = masks[0].sum(dim=(1, 2)) / masks[1].sum(dim=(1, 2))
    assert (ratio - 1).abs().max() < 0.03


def test_given_exposures_make_all_photos_equally_bright() -> None:
    """Against renders of the subject before the same backgrounds without any exposure."""
    photos = subject_photos()
    given = with_truth(photos, NAME, ("exposures",))
    plain = render_views(subject_recipe(NAME), photo_cameras(NAME), torch.zeros(3), 48)
    inside = (plain.mask == 1)[:, None].expand(-1, 3, -1, -1)
    images, before = torch.stack(given.images), torch.stack(photos.images)
    bright = before < 0.999  # a photo may be too bright to tell
    torch.testing.assert_close(images[inside & bright], plain.image[inside & bright], atol=2e-3, rtol=0)
    exposures = photo_exposures(NAME)
    assert (exposures - 1).abs().max() > 0.03 and 0.88 <= exposures.min() <= exposures.max() <= 1.1
    assert given.cameras is None and with_truth(photos, NAME, ()) is photos


def test_photos_are_exposed_as_it_is_said() -> None:
    photos, exposures = subjects.casual_photos("urn", 48), photo_exposures("urn")
    plain = render_views(subject_recipe("urn"), photo_cameras("urn"), torch.zeros(3), 48)
    for photo, image, mask, exposure in zip(photos, plain.image, plain.mask, exposures.tolist(), strict=True):
        inside = (mask == 1)[None].expand(3, -1, -1) & (photo < 0.999) & (image > 0.2)
        assert (photo[inside] / image[inside]).median().item() == pytest.approx(exposure, abs=2e-3)
    true = photo_cameras("urn").azimuth_deg
    assert wrap_degrees(torch.tensor(photo_azimuths_deg("urn")) - true).abs().max() < 1e-4
    assert all(-180 <= angle < 180 for angle in photo_azimuths_deg("urn"))


def test_runs_that_share_their_finetuning_stay_together() -> None:
    names = ("naive", "dreambooth3d", "partial", plan.CEILING, "seed")
    runs = [Run(Method(name, name), subject, 0) for subject in ("urn", "cup") for name in names]
    groups = pool.grouped(runs, workers=1)
    assert sorted(len(group) for group in groups) == [1, 1, 1, 1, 3, 3], "three of them share it, per subject"
    assert sorted(run.key for group in groups for run in group) == sorted(run.key for run in runs)
    for group in groups:
        tuned = {repr(getattr(load_config(run.method), "finetune_dreambooth", None)) for run in group}
        assert len({(run.subject, run.seed) for run in group}) == len(tuned) == 1
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True), "the longest first"
    split = pool.grouped(runs, workers=8)
    assert len(split) == 8 and sorted(map(len, split)) == [1, 1, 1, 1, 1, 1, 2, 2]
    assert pool.grouped(runs[:1], workers=4) == [runs[:1]]


def test_runs_that_share_their_first_field_are_never_divided() -> None:
    """However many processes there are: computed twice, it would be two fields."""
    later = [Method(f"later_{n}", plan.DEFAULT, (f"refine_nerf.steps={n}",)) for n in (10, 20, 30)]
    other = [Method(f"other_{n}", plan.DEFAULT, (f"init_nerf.steps={n}",)) for n in (10, 20)]
    given = Method("given", plan.DEFAULT, given=("cameras",))
    runs = [Run(method, "urn", 0) for method in (*later[:2], other[0], given, later[2], other[1])]
    groups = [{run.method.name for run in group} for group in pool.grouped(runs, workers=16)]
    assert {method.name for method in later} in groups and len(groups) == 4
    assert sorted(map(len, pool.grouped(runs, workers=3))) == [1, 2, 3]
    assert all(len(group) == len(set(group)) for group in groups)
