"""The training loop on a known multi-view target: fit, resume, collapse, stop, reconstruction."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import POSE_FACTS, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.config.distillation import (
    DistillConfig,
    EditNerfConfig,
    InitNerfConfig,
    ReconstructionConfig,
    RefineNerfConfig,
    RegularizerConfig,
)
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.photo_targets import InitPhotoTargetsConfig, PhotoTargetsConfig
from dreambooth3d.config.rendering import RenderConfig, ShadingConfig
from dreambooth3d.errors import CollapseError
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.kinds import render_asset
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.runtime import ResumePoint, Runtime
from tests.evaluation.stand_ins import photos_of
from tests.nerf.scenes import BallGuidance, colored_ball

NO_REGULARIZERS = RegularizerConfig(sparsity=0.0, opacity=0.0)
FIELD = FieldConfig(encoding="dense", volume_resolution=32, background="white")
RENDER = RenderConfig(size=24, samples_per_ray=32)


def settings(**changes: object) -> InitNerfConfig:
    values: dict[str, object] = {
        "steps": 120,
        "views_per_step": 2,
        "field": FIELD,
        "render": RENDER,
        "regularizers": NO_REGULARIZERS,
        "random_background_probability": 0.0,
        "check_every": 50,
    }
    return InitNerfConfig(**{**values, **changes})


def runtime(folder: Path, **changes: object) -> Runtime:
    return Runtime(StepLog("init_nerf"), folder, progress=False, **changes)


def psnr(field: RadianceField, cameras: Cameras) -> float:
    render = render_asset(field, cameras, size=64, samples_per_ray=64).color
    return -10 * (render - colored_ball(cameras, 64)).square().mean().log10().item()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> RadianceField:
    return distil(DistillInputs(BallGuidance()), settings(), 0, runtime(tmp_path_factory.mktemp("fit")))


def test_fits_a_known_ball_whose_front_is_red(fitted: RadianceField) -> None:
    cameras = orbit_cameras(torch.arange(0, 360, 30.0) + 7)
    assert psnr(fitted, cameras) > 22
    front, side, back = render_asset(
        fitted, orbit_cameras(torch.tensor([0.0, 90.0, 180.0]), elevation_deg=0.0), size=33, samples_per_ray=48
    ).color[:, :, 16, 16]
    assert front[0] > 0.7 and front[2] < 0.4
    assert back[2] > 0.6 and back[0] < 0.4
    assert side[2] > 0.6 and side[0] < 0.4


def test_reports_what_happened(fitted: RadianceField) -> None:
    record = fitted.record
    assert fitted.steps == 120 and record.metrics["steps"] == 120
    assert record.metrics["collapse_retries"] == 0 and record.metrics["interrupted"] == 0
    assert 0.1 < record.metrics["opacity"] < 0.4 and record.metrics["peak_memory_mib"] > 50
    assert fitted.previews.shape == (8, 3, 64, 64)
    series = record.series.pivot(index="step", columns="name", values="value")
    wanted = {"guidance_loss", "guidance/mse", "opacity", "learning_rate", "ms_per_step", "density_max", "loss"}
    assert wanted <= set(series.columns)
    assert list(series.index) == [1, *range(10, 121, 10)]
    assert series["learning_rate"].loc[120] == pytest.approx(2e-3, rel=0.05)
    assert series["occupied_share"].loc[120] < 0.5 < series["occupied_share"].loc[10]
    assert record.images["previews"].dtype == torch.uint8
    assert record.params["guard_events"] == "none"
    trips = {name: count for name, count in record.metrics.items() if name.endswith("_trips")}
    guards = ("nan", "opacity", "occupancy", "saturation")
    assert trips == dict.fromkeys([f"guards/{guard}_trips" for guard in guards], 0)


def test_growth_is_some_pictures_by_step(fitted: RadianceField, tmp_path: Path) -> None:
    """Of every check of a short stage, and of a long one no more than a picture or two per twelfth."""
    every, images = settings().check_every, fitted.record.images
    steps = [int(name.partition("/")[2]) for name in images if name.startswith("growth/")]
    assert steps == [*range(every, 120, every), 120]
    assert images["growth/000120"].shape == images["previews"].shape
    field = distil(DistillInputs(BallGuidance()), settings(steps=50, check_every=1), 0, runtime(tmp_path))
    shown = [name for name in field.record.images if name.startswith("growth/")]
    assert 10 <= len(shown) <= 13 and shown[-1] == "growth/000050"


def test_a_killed_run_continues_and_ends_the_same(
    fitted: RadianceField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResumePoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        distil(DistillInputs(BallGuidance(interrupt_at=71)), settings(), 0, runtime(tmp_path))
    monkeypatch.undo()
    guidance = BallGuidance()
    resumed = distil(DistillInputs(guidance), settings(), 0, runtime(tmp_path))
    assert guidance.calls == 50 and guidance.progress[0] == pytest.approx(70 / 120)
    for name, value in fitted.state.items():
        torch.testing.assert_close(resumed.state[name], value, atol=0, rtol=0)
    expected = fitted.record.series.query("name != 'ms_per_step'")
    assert resumed.record.series.query("name != 'ms_per_step'").equals(expected)
    assert resumed.record.images.keys() == fitted.record.images.keys()
    assert all(torch.equal(resumed.record.images[name], image) for name, image in fitted.record.images.items())
    assert not any(tmp_path.rglob("*.safetensors"))


def test_a_stop_signal_gives_a_field_and_keeps_the_state(tmp_path: Path) -> None:
    guidance = BallGuidance()
    stopped = distil(
        DistillInputs(guidance), settings(), 0, runtime(tmp_path, should_stop=lambda: guidance.calls >= 20)
    )
    assert stopped.steps == 20 and stopped.record.metrics["interrupted"] == 1
    again = BallGuidance()
    distil(DistillInputs(again), settings(steps=30), 0, runtime(tmp_path))
    assert again.calls == 10


class Silent(Guidance):
    """Guidance without an opinion."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        return GuidanceLoss(0 * images.sum())


class Spoiling(Guidance):
    """Guidance whose every answer is NaN."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        return GuidanceLoss(images.sum() * float("nan"))


class BreakOnce(BallGuidance):
    """Spoils the first attempt with a NaN; from then on follows the ball."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        answer = super().__call__(images, cameras, progress)
        return GuidanceLoss(answer.loss * float("nan")) if self.calls == 1 else answer


def test_a_collapsed_field_is_tried_again_with_another_seed(tmp_path: Path) -> None:
    field = distil(DistillInputs(BreakOnce()), settings(steps=60), 0, runtime(tmp_path))
    assert field.record.metrics["collapse_retries"] == 1 and field.steps == 60
    assert field.record.metrics["opacity"] > 0.05
    losses = field.record.series.query("name == 'loss'")
    assert losses.step.is_monotonic_increasing and losses.value.notna().all()
    assert field.record.params["guard_events"] == "nan 2 > 0 at step 1: tried again"


def test_repeated_collapse_is_one_clear_sentence(tmp_path: Path) -> None:
    sparse = RegularizerConfig(sparsity=10.0, opacity=0.0)
    config = settings(learning_rate=0.1, final_learning_rate=0.1, regularizers=sparse, collapse_retries=1)
    with pytest.raises(CollapseError, match="init_nerf: the field became empty .* at step .* 1 other seed"):
        distil(DistillInputs(Silent()), config, 0, runtime(tmp_path))


def test_nan_is_a_collapse(tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match="became NaN"):
        distil(DistillInputs(Spoiling()), settings(collapse_retries=1), 0, runtime(tmp_path))


def test_stops_when_previews_no_longer_change(tmp_path: Path) -> None:
    config = settings(check_every=10, convergence_patience=2, convergence_tolerance=0.5)
    field = distil(DistillInputs(BallGuidance()), config, 0, runtime(tmp_path))
    assert field.steps == 30 and field.record.metrics["converged"] == 1
    looks = field.record.series.query("name == 'guards/opacity'")
    assert looks.step.tolist() == [10, 20, 30], "the last check is the final one as well"


def test_reconstruction_teaches_what_guidance_does_not(fitted: RadianceField, tmp_path: Path) -> None:
    """Pseudo views show the ball with red and blue swapped, on grey: the colours must arrive, the grey must not."""
    cameras = orbit_cameras(torch.arange(0, 360, 30.0))
    images = colored_ball(cameras, 64).flip(1)
    images = torch.where((images == 1).all(1, keepdim=True), torch.full_like(images, 0.6), images)
    pseudo = PseudoViews(images, images, images[:, 0], cameras, 0.4)
    config = RefineNerfConfig(
        steps=40,
        views_per_step=1,
        render=RENDER,
        regularizers=NO_REGULARIZERS,
        reconstruction=ReconstructionConfig(weight=100.0),
        learning_rate=0.02,
    )

    refined = distil(DistillInputs(Silent(), init=fitted, pseudo_views=pseudo), config, 0, runtime(tmp_path))
    assert refined.steps == 160
    front = render_asset(refined, orbit_cameras(torch.zeros(1)), size=33, samples_per_ray=48)
    assert front.color[0, 2, 16, 16] > 0.6 and front.color[0, 0, 16, 16] < 0.4
    assert front.opacity[0, 0, 0] < 0.01
    assert abs(refined.record.metrics["opacity"] - fitted.record.metrics["opacity"]) < 0.03


class Watching(BallGuidance):
    """Remembers from where it was asked to look."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Cameras] = []

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        assert len(images) == len(cameras)
        self.seen.append(cameras)
        return super().__call__(images, cameras, progress)


def pseudo_views_of_ball(count: int) -> PseudoViews:
    cameras = orbit_cameras(torch.arange(count) * 360.0 / count + 3, elevation_deg=12.0)
    images = colored_ball(cameras, 64)
    return PseudoViews(images, images, images[:, 0], cameras, 0.4)


@pytest.mark.parametrize("count", [2, 5])
def test_guidance_looks_only_from_where_pseudo_views_were_taken(
    count: int, fitted: RadianceField, tmp_path: Path
) -> None:
    """Three views per step of five pseudo views, and of two."""
    pseudo = pseudo_views_of_ball(count)
    config = RefineNerfConfig(
        steps=8,
        views_per_step=3,
        render=RENDER,
        reconstruction=ReconstructionConfig(weight=0.0, camera_poses="pseudo_views"),
    )  # fmt: skip
    guidance = Watching()
    distil(DistillInputs(guidance, init=fitted, pseudo_views=pseudo), config, 0, runtime(tmp_path / "views"))
    assert len(guidance.seen) == 8 and all(len(cameras) == min(3, count) for cameras in guidance.seen)
    azimuths = torch.cat([cameras.azimuth_deg for cameras in guidance.seen])
    assert torch.isin(azimuths, pseudo.cameras.azimuth_deg).all() and azimuths.unique().numel() == count
    assert (torch.cat([cameras.elevation_deg for cameras in guidance.seen]) == 12).all()
    assert all(cameras.azimuth_deg.unique().numel() == len(cameras) for cameras in guidance.seen)
    anywhere = Watching()
    config = config.model_copy(update={"reconstruction": ReconstructionConfig(weight=0.0)})
    distil(DistillInputs(anywhere, init=fitted, pseudo_views=pseudo), config, 0, runtime(tmp_path / "random"))
    azimuths = torch.cat([cameras.azimuth_deg for cameras in anywhere.seen])
    assert not torch.isin(azimuths, pseudo.cameras.azimuth_deg).any() and len(azimuths) == 24


def ball_photos(count: int = 4) -> SubjectPhotos:
    """Photos of the ball with little green in its colours, before grey."""
    cameras = orbit_cameras(torch.tensor([0.0, 80.0, 180.0, 270.0])[:count], elevation_deg=30.0)
    images = colored_ball(cameras, 64)
    images = torch.where((images == 1).all(1, keepdim=True), 0.6, images * torch.tensor([1.0, 0.1, 1.0]).view(3, 1, 1))
    return photos_of(*images)


def test_photos_teach_what_guidance_does_not_once_their_cameras_are_known(
    fitted: RadianceField, tmp_path: Path
) -> None:
    config = RefineNerfConfig(
        steps=40, views_per_step=1, render=RENDER, regularizers=NO_REGULARIZERS, learning_rate=0.02,
        photos=PhotoTargetsConfig(weight=100.0, silhouette_weight=1.0, start=0.25),
    )  # fmt: skip
    refined = distil(DistillInputs(Silent(), init=fitted, photos=ball_photos()), config, 0, runtime(tmp_path / "with"))
    series = refined.record.series
    assert series.query("name == 'photo_reconstruction'").step.min() > 10
    assert refined.record.metrics["photos_found"] == 4 and "photo_cameras" in refined.record.images
    front, back = render_asset(
        refined, orbit_cameras(torch.tensor([0.0, 180.0]), elevation_deg=0.0), size=33, samples_per_ray=48
    ).color[:, :, 16, 16]
    assert front[0] > 0.6 and back[2] > 0.6 and back[1] < 0.2, "blue was (0.2, 0.4, 0.8)"
    config = config.model_copy(update={"photos": PhotoTargetsConfig(weight=0.0)})
    without = distil(
        DistillInputs(Silent(), init=fitted, photos=ball_photos()), config, 0, runtime(tmp_path / "without")
    )
    assert "photo_reconstruction" not in set(without.record.series.name)


def ball_with_a_patch(cameras: Cameras) -> Tensor:
    """(n, 3, 64, 64) the coloured ball before grey, with a yellow patch on the side of azimuth 90."""
    image = colored_ball(cameras, 64, supersample=1)
    origins, directions = cameras.rays(64, 64)
    closest = (origins * directions).sum(-1)
    depth = (closest.square() - origins.square().sum(-1) + 0.25).clamp(min=0).sqrt()
    y = (origins + directions * (-closest - depth)[..., None])[..., 1]
    outside = (image == 1).all(1, keepdim=True)
    patched = torch.where((y > 0.3)[:, None], torch.tensor([0.9, 0.9, 0.1]).view(3, 1, 1), image)
    return torch.where(outside, 0.6, patched)


def test_mirrored_photos_teach_the_side_that_no_photo_shows(fitted: RadianceField, tmp_path: Path) -> None:
    """With mirroring the patch appears on the other side too; the ball that is fitted is blue there."""
    cameras = orbit_cameras(torch.tensor([5.0, 85.0]), elevation_deg=30.0)
    photos = photos_of(*ball_with_a_patch(cameras))
    told = dict(zip(POSE_FACTS, ([5.0, 85.0], [30.0, 30.0], [2.5, 2.5]), strict=True))
    photos = replace(photos, facts=photos.facts.assign(**told))

    def other_side(mirror_weight: float, init: RadianceField = fitted) -> tuple[RadianceField, Tensor]:
        targets = PhotoTargetsConfig(
            weight=100.0, silhouette_weight=1.0, search_every=1.0, mirror_weight=mirror_weight, subject_radius=0.5,
            usual_distance=2.5,
        )  # fmt: skip
        config = RefineNerfConfig(
            steps=40, views_per_step=1, render=RENDER, regularizers=NO_REGULARIZERS, learning_rate=0.02, photos=targets
        )  # fmt: skip
        folder = tmp_path / f"{mirror_weight}-{len(init.record.metrics)}"
        field = distil(DistillInputs(Silent(), init=init, photos=photos), config, 0, runtime(folder))
        view = orbit_cameras(torch.tensor([-85.0]), elevation_deg=15.0)
        return field, render_asset(field, view, size=33, samples_per_ray=48).color[0, :, 16, 16]

    (mirrored, color), (plain, unmirrored) = other_side(1.0), other_side(0.0)
    assert color[0] > 0.6 and color[2] < 0.4, color
    assert unmirrored[0] < 0.4, unmirrored
    assert {"mirror_reconstruction", "mirror_silhouette"} <= set(mirrored.record.series.name)
    assert mirrored.record.metrics["mirror_error"] < 2.2 and mirrored.record.metrics["mirror_overlap"] > 0.9
    assert not any(name.startswith("mirror_") for name in plain.record.series.name)
    known = {"mirror_error": 9.0, "mirror_overlap": 0.5}
    crooked, untouched = other_side(1.0, replace(fitted, record=StepRecord("init_nerf", metrics=known)))
    assert untouched[0] < 0.4, "what an earlier stage has found out stays"
    assert known.items() <= dict(crooked.record.metrics).items()


def test_exposures_of_photos_are_learned_and_reported(fitted: RadianceField, tmp_path: Path) -> None:
    """Photos of the field itself, one darker and one brighter, while the field hardly learns."""
    cameras = orbit_cameras(torch.tensor([0.0, 80.0, 180.0]), elevation_deg=30.0)
    views = render_asset(fitted, cameras, size=64, samples_per_ray=48, background=torch.full((3,), 0.6))
    gain = torch.tensor([0.85, 1.0, 1.15])[:, None, None, None]
    images = gain * (views.color - 0.6 * (1 - views.opacity)[:, None]) + 0.6 * (1 - views.opacity)[:, None]
    photos = PhotoTargetsConfig(
        weight=100.0, silhouette_weight=1.0, exposure_learning_rate=0.02, views_per_step=3, search_every=1.0
    )  # fmt: skip
    config = RefineNerfConfig(
        steps=40, views_per_step=1, render=RENDER, regularizers=NO_REGULARIZERS, learning_rate=1e-6,
        final_learning_rate=1e-6, photos=photos,
    )  # fmt: skip
    field = distil(
        DistillInputs(Silent(), init=fitted, photos=photos_of(*images.clamp(0, 1))), config, 0, runtime(tmp_path)
    )
    found = torch.tensor([float(value) for value in field.record.params["photo_exposures"].split(", ")])
    expected = gain.flatten() / gain.log().mean().exp()
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


@pytest.mark.slow
def test_a_field_that_does_not_fit_the_photos_is_tried_again_and_kept_in_the_end(tmp_path: Path) -> None:
    photos = InitPhotoTargetsConfig(weight=1.0, silhouette_weight=0.0, start=0.5, min_overlap=1.0)
    guidance = BallGuidance()
    heard: list[tuple[int, str]] = []
    log = StepLog("init_nerf", lambda step, values: heard.extend((step, name) for name in values))
    surroundings = Runtime(log, tmp_path, progress=False)
    field = distil(DistillInputs(guidance, photos=ball_photos()), settings(steps=20, photos=photos), 0, surroundings)
    assert guidance.calls == 40 and field.record.metrics["collapse_retries"] == 1 and field.steps == 20
    series = field.record.series
    assert heard == list(zip(series.step, series.name, strict=True)), "what a tracker heard is what the record holds"
    assert len(set(heard)) == len(heard) and series.query("name == 'loss'").step.tolist() == [1, 10, 20, 21, 30, 40]
    assert re.fullmatch(r"photo_overlap 0\.\d+ < 1 at step 20: tried again", field.record.params["guard_events"])
    satisfied = BallGuidance()
    photos = photos.model_copy(update={"min_overlap": 0.0})
    distil(DistillInputs(satisfied, photos=ball_photos()), settings(steps=20, photos=photos), 0, runtime(tmp_path))
    assert satisfied.calls == 20


def test_a_killed_run_with_photos_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarse_searches: None
) -> None:
    photos = InitPhotoTargetsConfig(weight=10.0, silhouette_weight=1.0, start=0.3, search_every=0.3)
    config = settings(steps=60, average_decay=0.9, photos=photos)
    whole = distil(DistillInputs(BallGuidance(), photos=ball_photos(3)), config, 0, runtime(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(ResumePoint, "due", lambda self: True)
        with pytest.raises(KeyboardInterrupt):
            distil(
                DistillInputs(BallGuidance(interrupt_at=41), photos=ball_photos(3)),
                config,
                0,
                runtime(tmp_path / "killed"),
            )
    resumed = distil(DistillInputs(BallGuidance(), photos=ball_photos(3)), config, 0, runtime(tmp_path / "killed"))
    for name, value in whole.state.items():
        torch.testing.assert_close(resumed.state[name], value, atol=0, rtol=0)


def test_converges_only_once_all_photos_are_in_use(tmp_path: Path, coarse_searches: None) -> None:
    photos = InitPhotoTargetsConfig(weight=10.0, start=0.2, search_every=0.2, search_until=0.6, min_overlap=0.0)
    config = settings(steps=50, photos=photos, check_every=5, convergence_patience=2, convergence_tolerance=1.0)
    field = distil(DistillInputs(BallGuidance(), photos=ball_photos()), config, 0, runtime(tmp_path / "with"))
    assert field.steps == 40, "the search at step 30 is the last one; the checks at 35 and 40 find no change"
    assert field.record.metrics["converged"] == 1
    without = distil(DistillInputs(BallGuidance()), config, 0, runtime(tmp_path / "without"))
    assert without.steps == 15, "the first check has nothing to compare with"


def test_the_result_is_the_running_average_of_the_parameters(tmp_path: Path) -> None:
    """Against a mean kept apart, of the parameters after each step."""
    final_logits = []
    for steps in (1, 2, 3):
        config = settings(steps=steps, learning_rate=0.02, final_learning_rate=0.02)
        final_logits.append(distil(DistillInputs(BallGuidance()), config, 0, runtime(tmp_path / str(steps))).state)
    averaged = settings(steps=3, learning_rate=0.02, final_learning_rate=0.02, average_decay=0.75)
    state = distil(DistillInputs(BallGuidance()), averaged, 0, runtime(tmp_path / "average")).state
    for name in (name for name in state if name.startswith("encoding.")):
        first, second, third = (step[name] for step in final_logits)
        expected = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
        torch.testing.assert_close(state[name], expected, atol=1e-6, rtol=1e-5)


def test_everything_switched_on_runs_on_a_hash_grid(tmp_path: Path) -> None:
    every = RegularizerConfig(sparsity=0.1, opacity=0.1, orientation=0.1, distortion=0.1, smoothness=0.1)
    config = settings(
        steps=6,
        field=FieldConfig(implementation="torch", levels=3, log2_table_size=10, hidden_width=16, background="network"),
        render=RenderConfig(size=12, samples_per_ray=16, occupancy_resolution=12),
        regularizers=every,
        shading=ShadingConfig(albedo_only_share=0.0, diffuse_probability=1.0),
        random_background_probability=0.5,
    )
    field = distil(DistillInputs(BallGuidance()), config, 3, runtime(tmp_path))
    logged = set(field.record.series.name)
    assert {"sparsity", "opacity_entropy", "orientation", "distortion", "smoothness"} <= logged


def test_arguments_that_do_not_fit_are_refused(fitted: RadianceField, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without init"):
        distil(DistillInputs(BallGuidance()), DistillConfig(), 0, runtime(tmp_path))
    cameras = orbit_cameras(torch.zeros(1))
    pseudo = PseudoViews(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8), torch.ones(1, 8, 8), cameras, 0.4)
    with pytest.raises(ValueError, match="config.reconstruction must say"):
        distil(DistillInputs(BallGuidance(), init=fitted, pseudo_views=pseudo), settings(), 0, runtime(tmp_path))


@pytest.mark.parametrize(
    ("config", "values", "sentence"),
    [
        (RefineNerfConfig, {"field": {"levels": 3}}, "set init_nerf.field instead"),
        (EditNerfConfig, {"field": {}}, "set init_nerf.field instead"),
        (EditNerfConfig, {"reconstruction": {"weight": 1.0}}, "refine_nerf.reconstruction"),
        (InitNerfConfig, {"reconstruction": {}}, "refine_nerf.reconstruction"),
    ],
)
def test_a_part_that_a_stage_lacks_is_refused(
    config: type[DistillConfig], values: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        config(**values)
