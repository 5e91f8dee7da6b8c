"""The evaluation of an asset that was made from a prompt alone: is it what was asked for, and has it one front?"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_FRAMES, Cameras
from dreambooth3d.config.generation import EvaluatePromptConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.contexts import preferred_words
from dreambooth3d.evaluation.distractors import competing_captions
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.evaluation.pixels import Views
from dreambooth3d.evaluation.report import COMPARED_FRAMES, RenderViews, caption_rank, field_renderer
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.evaluation.views import judge_views, judged_cameras
from dreambooth3d.glossary import meanings
from dreambooth3d.runtime import Runtime
from dreambooth3d.toybox.captions import IDENTIFIERS
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.contexts import Attributes, parse_prompt
from dreambooth3d.toybox.recipes import COLOUR_NAMES, NO_SCARF, TRAINING_CLASSES, Recipe

ASSET, TRUTH = "asset", "truth"
SHOWN_TRUTHS = 3

NAMES = (
    "clip_t", "r_precision", "colour_accuracy", "view_accuracy", "janus_rate", "janus_excess", "front_recall", "opacity"
)  # fmt: skip
DEFINITIONS = meanings(NAMES, "evaluate_prompt/")
TRUTH_SUFFIX = "_truth"
_TRUTH_DEFINITION = "{} of true renders of subjects that the prompt describes, drawn at random: a perfect asset's."


@dataclass(frozen=True)
class _Question:
    """What the judge is asked about each set of views; the turntable's 36 come first, then those of the upper ring.

    Attributes:
        judge: who is asked.
        class_noun: of what was asked for.
        asked: what the prompt says, where it is of the toybox' grammar.
        caption: the prompt without identifiers.
        captions: that it competes with, itself among them.
        cameras: of the views.
    """

    judge: ClipScorer
    class_noun: str
    asked: Attributes | None
    caption: str
    captions: list[str]
    cameras: Cameras


def evaluate_prompt(
    asset: RadianceField,
    photos: SubjectPhotos,
    judge: ClipScorer,
    config: EvaluatePromptConfig,
    runtime: Runtime,
    render_views: RenderViews | None = None,
) -> EvaluationReport:
    """Score an asset that was made from a prompt alone.

    There is no one truth to compare pixels with, since a prompt leaves most of a subject open. Where the toybox can
    express it, the judge sees true subjects that it describes as well.

    Args:
        asset: the field.
        photos: the prompt and its class noun.
        judge: a scorer that steered nothing.
        config: size and sampling of the scored renders, competing captions, how many true subjects.
        runtime: log and device.
        render_views: replaces the rendering of a field.

    Returns:
        Metrics named as in `DEFINITIONS`, with `_truth` behind them for the mean over the true subjects.
    """
    render_views = render_views or field_renderer(config, runtime)
    question = _question(photos, judge, config)
    views = {ASSET: render_views(asset, question.cameras)}
    recipes = fitting_recipes(question.asked, photos.class_noun, photos.instance_prompt, config.true_subjects)
    for index, recipe in enumerate(recipes):
        views[f"{TRUTH} {index}"] = true_views(GroundTruth(recipe.to_dict()), question.cameras, config.size)
    scored = {name: _score(name, shown, question) for name, shown in views.items()}
    metrics = dict(scored[ASSET][0])
    if recipes:
        true = pd.DataFrame([values for name, (values, _) in scored.items() if name != ASSET]).mean()
        metrics |= {f"{name}{TRUTH_SUFFIX}": float(value) for name, value in true.items()}
        metrics["janus_excess"] = metrics["janus_rate"] - metrics[f"janus_rate{TRUTH_SUFFIX}"]
    comparison = comparison_sheet(views)
    shown = config.model_dump(exclude={"captions"})
    runtime.log.params(**shown, caption=question.caption, captions=len(question.captions), truth=bool(recipes))
    runtime.log.metrics(**metrics)
    runtime.log.image("comparison", comparison)
    table = pd.concat([table for _, table in scored.values()], ignore_index=True)
    definitions = {name: _definition(name) for name in metrics}
    return EvaluationReport(metrics, definitions, table, comparison, runtime.log.record())


def comparison_sheet(views: dict[str, Views]) -> Float[Tensor, "3 height width"]:
    """(3, height, width): the asset and some true subjects at 8 azimuths from the front counter-clockwise."""
    rows = {name: shown.images[list(COMPARED_FRAMES)] for name, shown in list(views.items())[: 1 + SHOWN_TRUTHS]}
    return labelled_rows(rows, columns=len(COMPARED_FRAMES))


def fitting_recipes(asked: Attributes | None, class_noun: str, prompt: str, count: int) -> list[Recipe]:
    """Toybox subjects that a prompt describes, the same on every call; none where the toybox cannot express it.

    What the prompt leaves open is drawn, but for a pattern and an accessory: without a word for them there are none.
    """
    if asked is None or class_noun not in CLASSES or (asked.accessory == "scarf" and class_noun in NO_SCARF):
        return []
    random = Random(zlib.crc32(prompt.encode()))
    recipes = []
    for _ in range(count):
        main = asked.colour or random.choice(COLOUR_NAMES)
        second = asked.second_colour or random.choice([colour for colour in COLOUR_NAMES if colour != main])
        look = (main, second, asked.pattern or "plain", asked.accessory, asked.accessory_colour)
        recipes.append(Recipe(class_noun, *look, seed=random.getrandbits(31)))
    return recipes


def rival_captions(asked: Attributes, class_noun: str) -> list[str]:
    """The prompt's caption first, then those with another colour, another class, and both."""
    colours = [colour for colour in COLOUR_NAMES if colour != asked.second_colour]
    others = [
        Attributes(**{**asked.named, **({"colour": colour} if asked.colour else {})}).caption(noun)
        for noun in TRAINING_CLASSES
        for colour in colours
    ]
    return list(dict.fromkeys([asked.caption(class_noun), *others]))


def _question(photos: SubjectPhotos, judge: ClipScorer, config: EvaluatePromptConfig) -> _Question:
    """Gather what the views are compared with."""
    noun = photos.class_noun
    prompt = " ".join(word for word in photos.instance_prompt.split() if word.lower() not in IDENTIFIERS)
    asked = parse_prompt(prompt, "", noun)
    caption = prompt if asked is None else asked.caption(noun)
    captions = [caption, *(other for other in config.captions if other != caption)]
    if not config.captions:
        captions = competing_captions(caption, noun) if asked is None else rival_captions(asked, noun)
    return _Question(judge, noun, asked, captions[0], captions, judged_cameras())


def _score(name: str, views: Views, question: _Question) -> tuple[dict[str, float], pd.DataFrame]:
    """The metrics of one set of views, and a table with a row per turntable view."""
    judge, noun, asked = question.judge, question.class_noun, question.asked
    features = judge.image_features(views.images)
    turntable = features[:TURNTABLE_FRAMES]
    scores = turntable @ judge.text_features(question.captions).T
    columns = {"clip_t": scores[:, 0], "caption_rank": caption_rank(scores, 0)}
    verdict = judge_views(features, question.cameras, noun, judge)
    metrics = {
        "clip_t": columns["clip_t"].mean().item(),
        "r_precision": (columns["caption_rank"] == 1).float().mean().item(),
        "view_accuracy": verdict.accuracy,
        "janus_rate": verdict.janus_rate,
        "front_recall": verdict.front_recall,
        "opacity": views.masks[:TURNTABLE_FRAMES].mean().item(),
    }
    words: dict[str, list[str]] = {}
    if asked is not None and asked.colour is not None:
        words["colour"] = preferred_words(turntable, asked.rival_captions("colour", noun), judge)
        right = torch.tensor([word == asked.colour for word in words["colour"]])
        metrics["colour_accuracy"] = right.float().mean().item()
    about = {"asset": name, "view": range(TURNTABLE_FRAMES)}
    about["azimuth_deg"] = question.cameras.azimuth_deg[:TURNTABLE_FRAMES].tolist()
    return metrics, pd.DataFrame(about | {key: values.tolist() for key, values in columns.items()} | words)


def _definition(name: str) -> str:
    """The sentence that defines a metric, that of the truth included."""
    if name.endswith(TRUTH_SUFFIX):
        return _TRUTH_DEFINITION.format(name.removesuffix(TRUTH_SUFFIX))
    return DEFINITIONS[name]
