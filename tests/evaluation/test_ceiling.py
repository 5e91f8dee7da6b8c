"""The ceiling: a field fitted to true views, against what needs no field at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts import GroundTruth, PseudoViews, RadianceField
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.distillation import FitTrueViewsConfig, ReconstructionConfig, RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation import ceiling
from dreambooth3d.evaluation.ceiling import fit_true_views
from dreambooth3d.evaluation.pixels import Views, mean_baseline, psnr_fg
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.kinds import render_asset
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

TRUTH = GroundTruth({"class_noun": "dog", "main": "red", "second": "white", "seed": 3})
SIZE = 32
CONFIG = FitTrueViewsConfig(
    steps=60,
    views_per_step=1,
    count=18,
    view_size=SIZE,
    reconstruction=ReconstructionConfig(views_per_step=6),
    learning_rate=0.05,
    final_learning_rate=0.02,
    field=FieldConfig(encoding="dense", volume_resolution=24),
    render=RenderConfig(size=24, samples_per_ray=32),
    regularizers=RegularizerConfig(sparsity=0.0, opacity=0.0),
)


def runtime(folder: Path) -> Runtime:
    return Runtime(StepLog("fit_true_views"), folder, progress=False)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> RadianceField:
    return fit_true_views(TRUTH, CONFIG, 0, runtime(tmp_path_factory.mktemp("ceiling")))


def test_true_views_make_a_better_field_than_their_mean(fitted: RadianceField) -> None:
    cameras = turntable_cameras()[list(range(0, 36, 4))]
    truth = true_views(TRUTH, cameras, SIZE)
    rendering = render_asset(fitted, cameras, size=SIZE, samples_per_ray=48)
    ours = psnr_fg(Views(rendering.color, rendering.opacity), truth)
    assert (ours > psnr_fg(mean_baseline(truth), truth) + 2).all(), ours
    assert ours.mean() > 16
    assert rendering.opacity[:, 0, 0].max() < 0.05, "the colour behind the true views stays outside"


def test_the_record_is_that_of_the_step(fitted: RadianceField) -> None:
    assert fitted.steps == 60 and fitted.record.name == "fit_true_views"
    series = set(fitted.record.series.name)
    assert {"reconstruction", "silhouette"} <= series and not any(name.startswith("photo_") for name in series)


def test_no_fitted_view_is_a_scored_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the field gets to see: true views, before the configured colour, from between the turntable's cameras."""
    given: list[PseudoViews] = []
    monkeypatch.setattr(ceiling, "distil", lambda inputs, *_: given.append(inputs.pseudo_views))
    fit_true_views(TRUTH, FitTrueViewsConfig(view_size=SIZE), 0, runtime(tmp_path))
    views = given[0]
    scored = turntable_cameras().azimuth_deg
    apart = (views.cameras.azimuth_deg[:, None] - scored).abs()
    assert len(views.cameras) == 36 and torch.minimum(apart, 360 - apart).min() == 5
    assert views.cameras.elevation_deg.unique().tolist() == [0, 15, 35]
    truth = true_views(TRUTH, views.cameras, SIZE)
    assert torch.equal(views.opacity, truth.masks) and views.strength == 0
    outside, inside = truth.masks == 0, truth.masks == 1
    colors = views.images.permute(0, 2, 3, 1)
    behind = torch.tensor(FitTrueViewsConfig().background)
    torch.testing.assert_close(colors[outside], behind.expand_as(colors[outside]))
    torch.testing.assert_close(colors[inside], truth.images.permute(0, 2, 3, 1)[inside])


def test_as_few_views_as_photos_come_from_where_these_were_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[PseudoViews] = []
    monkeypatch.setattr(ceiling, "distil", lambda inputs, *_: given.append(inputs.pseudo_views))
    config = FitTrueViewsConfig(view_size=SIZE, azimuths="photos")
    fit_true_views(replace(TRUTH, photo_azimuths_deg=(-46.0, 3.0, 160.0)), config, 0, runtime(tmp_path))
    assert given[0].cameras.azimuth_deg.tolist() == [-46.0, 3.0, 160.0] and len(given[0].images) == 3
    with pytest.raises(ConfigError, match="photo_azimuths_deg"):
        fit_true_views(TRUTH, config, 0, runtime(tmp_path))


def test_guidance_says_nothing() -> None:
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    answer = ceiling.NoGuidance()(images, turntable_cameras(1), 0.5)
    answer.loss.backward()
    assert answer.loss == 0 and (images.grad == 0).all() and answer.metrics == {}


def test_an_unknown_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no known ground truth"):
        fit_true_views(GroundTruth({}), CONFIG, 0, runtime(tmp_path))
    assert list(tmp_path.iterdir()) == []
