"""The evaluation of assets made from a prompt alone, on true renders, which must score as what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts import EvaluationReport, RadianceField
from dreambooth3d.cameras import Cameras
from dreambooth3d.config.generation import EvaluatePromptConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.pixels import Views
from dreambooth3d.evaluation.prompts import DEFINITIONS, evaluate_prompt, fitting_recipes, rival_captions
from dreambooth3d.photos.prompted import prompted_subject
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.runtime import Runtime
from dreambooth3d.toybox.captions import caption
from dreambooth3d.toybox.contexts import Attributes
from dreambooth3d.toybox.recipes import COLOUR_NAMES, TRAINING_CLASSES, Recipe
from dreambooth3d.toybox.render import render_views

PROMPT = "a photo of a blue dog"
NOTHING = RadianceField({}, {}, torch.ones(1, 3, 2, 2), 0)


@pytest.fixture(scope="module")
def judge() -> ClipScorer:
    """The bundled judge."""
    return ClipScorer.load("models/judge")


def judged(
    recipe: Recipe, judge: ClipScorer, prompt: str = PROMPT, turn_deg: float = 0.0, **config: object
) -> EvaluationReport:
    """The report on a true subject in place of an asset, turned about its axis."""

    def render(_field: RadianceField, cameras: Cameras) -> Views:
        turned = replace(cameras, azimuth_deg=cameras.azimuth_deg + turn_deg)
        shown = render_views(recipe, turned, size=48)
        return Views(shown.image.float(), shown.mask.float())

    photos = prompted_subject(prompt, prompt.split()[5], StepRecord("read_prompt"))
    settings = EvaluatePromptConfig(size=48, **{"true_subjects": 1, **config})
    runtime = Runtime(StepLog("evaluate_prompt"), Path("unused"))
    return evaluate_prompt(NOTHING, photos, judge, settings, runtime, render)


@pytest.fixture(scope="module")
def report(judge: ClipScorer) -> EvaluationReport:
    """Of a true blue dog."""
    return judged(Recipe("dog", "blue", "pink", seed=4), judge)


def test_what_was_asked_for_scores_high(report: EvaluationReport) -> None:
    metrics = report.metrics
    assert metrics["r_precision"] == metrics["colour_accuracy"] == 1.0
    assert metrics["front_recall"] > 0.8 and abs(metrics["janus_excess"]) < 0.1 and metrics["view_accuracy"] > 0.8
    assert metrics["r_precision_truth"] > 0.9 and metrics["clip_t"] == pytest.approx(metrics["clip_t_truth"], abs=0.05)


def test_everything_is_defined_and_recorded(report: EvaluationReport) -> None:
    assert {*report.definitions} == {*report.metrics} and {*DEFINITIONS} <= {*report.metrics}
    assert report.definitions["clip_t_truth"].startswith("clip_t of true renders")
    assert report.record.metrics["r_precision"] == 1.0 and report.record.params["captions"] == len(
        rival_captions(Attributes("blue"), "dog")
    )
    assert "comparison" in report.record.images and len(report.views) == 2 * 36


def test_another_thing_or_colour_scores_low(judge: ClipScorer) -> None:
    other = judged(Recipe("chair", "blue", "pink", seed=4), judge, true_subjects=0).metrics
    red = judged(Recipe("dog", "red", "white", seed=4), judge, true_subjects=0).metrics
    assert other["r_precision"] < 0.1 and red["r_precision"] < 0.1
    assert red["colour_accuracy"] < 0.1 and "janus_excess" not in red
    assert red["clip_t"] < 0.36


def test_a_subject_that_faces_away_has_no_front_where_one_is_wanted(judge: ClipScorer) -> None:
    metrics = judged(Recipe("dog", "blue", "pink", seed=4), judge, turn_deg=180.0).metrics
    assert metrics["front_recall"] < 0.2 and metrics["janus_excess"] > 0.2


def test_captions_that_are_given_are_the_ones_that_compete(judge: ClipScorer) -> None:
    """Among prompts of other classes only, a red dog is the dog that was asked for."""
    captions = ("a photo of a green chair", "a photo of a white car", PROMPT)
    red = judged(Recipe("dog", "red", "white", seed=4), judge, true_subjects=0, captions=captions)
    assert red.metrics["r_precision"] > 0.9 and red.record.params["captions"] == 3


def test_prompts_beyond_the_toybox_have_no_truth(judge: ClipScorer) -> None:
    metrics = judged(Recipe("dog", "blue", "pink", seed=4), judge, "a photo of a dog that jumps").metrics
    assert "janus_excess" not in metrics and "colour_accuracy" not in metrics and "r_precision" in metrics


def test_true_subjects_fit_the_prompt() -> None:
    asked = Attributes("blue", accessory="hat", accessory_colour="red")
    recipes = fitting_recipes(asked, "dog", PROMPT, 5)
    assert recipes == fitting_recipes(asked, "dog", PROMPT, 5) and len({recipe.seed for recipe in recipes}) == 5
    for recipe in recipes:
        assert caption(recipe, colours=1, pattern=False) == "a photo of a blue dog wearing a red hat"
        assert recipe.pattern == "plain" and recipe.second != "blue"
    assert fitting_recipes(None, "dog", PROMPT, 5) == fitting_recipes(asked, "animal", PROMPT, 5) == []
    assert fitting_recipes(Attributes("blue", accessory="scarf", accessory_colour="red"), "chair", PROMPT, 5) == []


def test_rivals_are_one_of_each_class_and_colour() -> None:
    rivals = rival_captions(Attributes("blue"), "dog")
    assert rivals[0] == PROMPT and len(rivals) == len(set(rivals)) == len(TRAINING_CLASSES) * len(COLOUR_NAMES)
    assert len(rival_captions(Attributes(), "dog")) == len(TRAINING_CLASSES)
