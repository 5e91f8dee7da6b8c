"""The evaluation of edited assets whose quality is known."""

from __future__ import annotations

from dataclasses import replace

import torch

from dreambooth3d.artifacts import EvaluationReport, GroundTruth
from dreambooth3d.cameras import Cameras
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation.contexts import SUFFIXES, evaluate_context, preferred_words
from dreambooth3d.evaluation.pixels import Views
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.toybox.recipes import Recipe
from dreambooth3d.toybox.solids import COLOURS
from tests.evaluation.stand_ins import PaletteScorer, photos_of

SIZE = 32
DOG = Recipe("dog", "orange", "purple", accessory="hat", accessory_colour="blue", seed=3)
JUDGE = PaletteScorer(COLOURS)


def run(tmp_path, prompt: str, asset: Recipe, truth: GroundTruth | None = None) -> EvaluationReport:
    """Evaluate true renders of `asset` as if they were those of a field that was edited."""

    def render(recipe: Recipe, cameras: Cameras) -> Views:
        return true_views(GroundTruth(recipe.to_dict()), cameras, SIZE)

    photos, runtime = photos_of(torch.rand(3, 16, 16)), Runtime(StepLog("evaluate_context_0"), tmp_path)
    truth = GroundTruth(DOG.to_dict()) if truth is None else truth
    return evaluate_context(asset, DOG, prompt, photos, truth, JUDGE, EvaluateConfig(size=SIZE), runtime, render)


def test_a_perfect_edit_scores_as_the_truth(tmp_path) -> None:
    metrics = run(tmp_path, "a photo of a green sks dog", replace(DOG, main="green")).metrics
    assert metrics["attribute_accuracy"] == metrics["colour_accuracy"] == metrics["attribute_accuracy_truth"] == 1
    assert metrics["attribute_accuracy_source"] == 0
    assert metrics["clip_t"] == metrics["clip_t_truth"] > metrics["clip_t_source"]
    assert metrics["psnr_fg"] == 100 and metrics["mask_iou"] == 1 and metrics["color_error"] == 0
    assert metrics["psnr_fg_source"] < 20
    assert metrics["mask_iou_source"] == 1, "another colour has the same shape"


def test_an_asset_that_stayed_as_it_was_scores_as_the_source(tmp_path) -> None:
    metrics = run(tmp_path, "a photo of a green sks dog", DOG).metrics
    for name in ("attribute_accuracy", "clip_t", "psnr_fg", "view_accuracy", "janus_rate"):
        assert metrics[name] == metrics[f"{name}_source"]
    assert metrics["attribute_accuracy"] == 0


def test_all_asked_attributes_count_together(tmp_path) -> None:
    report = run(tmp_path, "a photo of a green and red sks dog", replace(DOG, main="green", second="white"))
    metrics, edited = report.metrics, report.views[report.views["asset"] == "edited"]
    assert metrics["colour_accuracy"] == 1
    assert metrics["attribute_accuracy"] == metrics["second_colour_accuracy"] < 1
    assert metrics["second_colour_accuracy"] == (edited["second_colour"] == "red").mean()
    assert metrics["attribute_accuracy_truth"] > metrics["attribute_accuracy"]


def test_what_the_toybox_cannot_draw_has_no_pixel_metrics(tmp_path) -> None:
    report = run(tmp_path, "a photo of a sks dog on the moon", DOG)
    names = {"clip_t", "view_accuracy", "janus_rate", "front_recall"}
    assert set(report.metrics) == names | {f"{name}_source" for name in names}
    assert report.record.params["caption"] == "a photo of a dog on the moon"


def test_without_truth_attributes_are_still_asked_for(tmp_path) -> None:
    metrics = run(tmp_path, "a photo of a green sks dog", replace(DOG, main="green"), GroundTruth({})).metrics
    assert metrics["attribute_accuracy"] == 1
    assert not [name for name in metrics if name.endswith("_truth") or name.startswith(("psnr", "mask"))]


def test_every_metric_is_defined_and_logged(tmp_path) -> None:
    report = run(tmp_path, "a photo of a striped sks dog wearing a red bow", DOG)
    assert set(report.metrics) == set(report.record.metrics) == set(report.definitions)
    assert all(text.endswith(".") for text in report.definitions.values())
    assert set(report.record.images) == {"comparison"}
    assert report.views.groupby("asset").size().to_dict() == dict.fromkeys(SUFFIXES, 36)


def test_preferred_words() -> None:
    red = torch.ones(1, 3, 8, 8)
    red[:, :, 2:6, 2:6] = torch.tensor(COLOURS["red"])[:, None, None]
    captions = {word: f"a photo of a {word} dog" for word in COLOURS}
    assert preferred_words(JUDGE.image_features(red), captions, JUDGE) == ["red"]


def test_the_comparison_has_a_row_of_each(tmp_path) -> None:
    sheet = run(tmp_path, "a photo of a green sks dog", replace(DOG, main="green")).comparison
    rows = sheet.chunk(3, dim=1)
    source, truth, edited = (row[:, :, 80:].mean(dim=(1, 2)) for row in rows)
    assert torch.allclose(truth, edited, atol=1e-3)
    assert source[0] > truth[0], "the source is orange, the truth green"
