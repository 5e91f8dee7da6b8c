"""The evaluation of assets whose quality is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation import heldout, registration
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.pixels import Views
from dreambooth3d.evaluation.report import DEFINITIONS, caption_rank, evaluate
from dreambooth3d.evaluation.truth import published_captions, true_caption, true_views
from dreambooth3d.evaluation.views import judged_cameras
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from tests.evaluation.stand_ins import photos_of, write_tiny_clip
from tests.export.fields import blob_field

SIZE = 24
TRUTH = GroundTruth({"class_noun": "dog", "main": "red", "second": "white", "seed": 3}, (5.0, -172.0))
CONFIG = EvaluateConfig(size=SIZE, samples_per_ray=24)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return ClipScorer.load(write_tiny_clip(tmp_path_factory.mktemp("judge")))


@pytest.fixture(scope="module")
def views():
    return true_views(TRUTH, judged_cameras(), SIZE)


def run(judge, tmp_path, render, truth=TRUTH, description=""):
    photos = photos_of(torch.rand(3, 40, 40), torch.rand(3, 32, 32), description=description)
    runtime = Runtime(StepLog("evaluate"), tmp_path)
    return evaluate("refined", "coarse", photos, truth, judge, CONFIG, runtime, render)


def test_true_views_follow_the_cameras(views):
    assert views.images.shape == (54, 3, SIZE, SIZE) and views.foreground.any(dim=(1, 2)).all()
    assert torch.equal(true_views(TRUTH, turntable_cameras(), SIZE).images, views.images[:36])


def test_the_true_caption_is_published():
    captions = published_captions(TRUTH)
    assert len(captions) == 200 and captions.count(true_caption(TRUTH)) == 1


KNOWN = {}


def truth_from(cameras):
    """The true views, rendered once for each set of cameras, which several tests ask for."""
    key = tuple(tuple(values.tolist()) for values in vars(cameras).values())
    if key not in KNOWN:
        KNOWN[key] = true_views(TRUTH, cameras, SIZE)
    return KNOWN[key]


def test_perfect_refined_and_turned_coarse(judge, tmp_path, views):
    half = torch.cat([views.images[18:36], views.images[:18], views.images[36:]])
    half_masks = torch.cat([views.masks[18:36], views.masks[:18], views.masks[36:]])
    report = run(
        judge, tmp_path, lambda field, cameras: truth_from(cameras) if field == "refined" else Views(half, half_masks)
    )
    metrics = report.metrics
    assert metrics["psnr"] == metrics["psnr_fg"] == 100 and metrics["mask_iou"] == 1
    assert metrics["janus_excess"] == 0 and metrics["janus_rate"] == metrics["janus_rate_truth"]
    for name in ("clip_i", "clip_t", "r_precision", "front_recall"):
        assert metrics[name] == metrics[f"truth/{name}"]
    assert metrics["coarse/psnr_fg"] < metrics["baseline_silhouette/psnr_fg"] < 100
    assert metrics["baseline_blank/mask_iou"] == 0 and metrics["baseline_silhouette/mask_iou"] == 1
    assert all(math.isfinite(value) for value in metrics.values())


def test_every_metric_is_defined_and_logged(judge, tmp_path, views):
    report = run(judge, tmp_path, lambda field, cameras: truth_from(cameras))
    assert set(report.metrics) == set(report.record.metrics)
    assert set(DEFINITIONS) - set(heldout.DEFINITIONS) <= set(report.definitions)
    for name in report.metrics:
        prefix, _, base = name.rpartition("/")
        assert base in report.definitions and (not prefix or f"{prefix}/" in report.definitions)
    assert set(report.record.images) == {"comparison", "baselines"}


def test_table_has_a_row_per_asset_and_view(judge, tmp_path, views):
    report = run(judge, tmp_path, lambda field, cameras: truth_from(cameras))
    table = report.views
    assert table.groupby("asset").size().to_dict() == {"coarse": 36, "refined": 36, "truth": 36}
    refined = table[table["asset"] == "refined"]
    assert refined["psnr"].mean() == pytest.approx(report.metrics["psnr"])
    assert (refined["caption_rank"] == 1).mean() == pytest.approx(report.metrics["r_precision"])
    assert refined["azimuth_deg"].tolist() == list(range(0, 360, 10))


def test_baselines_do_not_depend_on_the_asset(judge, tmp_path, views):
    def blank(field, cameras):
        return Views(torch.ones(len(cameras), 3, SIZE, SIZE), torch.zeros(len(cameras), SIZE, SIZE))

    report = run(judge, tmp_path, blank)
    for name in ("psnr", "psnr_fg", "ssim", "mask_iou"):
        assert report.metrics[name] == pytest.approx(report.metrics[f"baseline_blank/{name}"])


def test_without_truth_only_what_is_defined(judge, tmp_path, views):
    report = run(judge, tmp_path, lambda field, cameras: views, truth=GroundTruth({}))
    assert set(report.metrics) == {
        prefix + name
        for prefix in ("", "coarse/")
        for name in ("clip_i", "clip_t", "view_accuracy", "janus_rate", "front_recall")
    }
    described = run(judge, tmp_path, lambda field, cameras: views, truth=GroundTruth({}), description="a red dog")
    assert "r_precision" in described.metrics and "psnr" not in described.metrics


def test_views_near_the_photos_are_told_apart(judge, tmp_path):
    # Photos at 5 and -172 degrees: of the 36 azimuths, -10 to 20 and 170 to 200 lie within 20 degrees of one.
    near = [index for index in range(36) if index * 10 in (350, 0, 10, 20, 170, 180, 190, 200)]

    def wrong_far_away(field, cameras):
        views = truth_from(cameras)
        if len(cameras) != 54:
            return views
        images = torch.rand(views.images.shape)
        images[near] = views.images[near]
        return Views(images, views.masks, views.depths)

    metrics = run(judge, tmp_path, wrong_far_away).metrics
    assert metrics["near/psnr_fg"] == 100 and metrics["far/psnr_fg"] < 20
    assert metrics["psnr_fg"] == pytest.approx((8 * 100 + 28 * metrics["far/psnr_fg"]) / 36, abs=1e-3)
    unknown = GroundTruth(TRUTH.recipe)
    metrics = run(judge, tmp_path, wrong_far_away, truth=unknown).metrics
    assert not any(name.startswith(("near/", "far/")) for name in metrics)


def test_an_asset_that_is_turned_and_shrunk_is_aligned(judge, tmp_path):
    def moved(field, cameras):
        seen = dataclasses.replace(cameras, azimuth_deg=cameras.azimuth_deg - 50, distance=cameras.distance / 0.9)
        views = truth_from(seen)
        return Views(views.images, views.masks, views.depths * 0.9)

    metrics = run(judge, tmp_path, moved).metrics
    assert metrics["aligned/rotation_deg"] == pytest.approx(-50, abs=1.5)
    assert metrics["aligned/scale"] == pytest.approx(1 / 0.9, abs=0.02)
    assert metrics["aligned/psnr"] > metrics["psnr"] + 6
    assert metrics["aligned/depth_error"] < 0.3 * metrics["depth_error"]


def test_rank_of_the_true_caption():
    scores = torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.4, 0.9], [0.2, 0.2, 0.1]])
    assert caption_rank(scores, 1).tolist() == [1, 3, 2]


def test_real_fields_are_rendered(judge, tmp_path):
    runtime = Runtime(StepLog("evaluate"), tmp_path)
    photos = photos_of(torch.rand(3, 24, 24))
    report = evaluate(blob_field(), blob_field(), photos, TRUTH, judge, CONFIG, runtime)
    assert report.metrics["psnr_fg"] == report.metrics["coarse/psnr_fg"]
    assert 0.05 < report.metrics["mask_iou"] < 0.95 and report.comparison.shape[0] == 3


def test_held_out_photos_are_compared_and_teach_the_judge_nothing(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(registration, "ROUNDS", ((24, 1, 1),))
    photos = photos_of(torch.rand(3, 40, 40), torch.rand(3, 32, 32))
    disc = ((torch.arange(40) - 20).square()[:, None] + (torch.arange(40) - 20).square() < 100).float()
    held_out = photos_of(0.9 - 0.7 * disc.expand(3, -1, -1))
    assert held_out.trusted.all()

    def report_of(photos):
        runtime = Runtime(StepLog("evaluate"), tmp_path)
        return evaluate(blob_field(), blob_field(), photos, GroundTruth({}), judge, CONFIG, runtime)

    without, apart = report_of(photos), report_of(dataclasses.replace(photos, held_out=held_out))
    added = {"heldout_photo_iou", "heldout_photo_psnr_fg"}
    assert set(apart.metrics) - set(without.metrics) == added <= set(apart.definitions)
    assert {name: apart.metrics[name] for name in without.metrics} == without.metrics
    assert apart.comparison.shape[1] > without.comparison.shape[1]
    assert "heldout_photos" in apart.record.images and "heldout_photos" not in without.record.images
