"""The evaluation of an edited asset by the judge: is the subject now as the context prompt wants it?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_FRAMES, Cameras
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.evaluation.pixels import PIXEL_METRICS, Views
from dreambooth3d.evaluation.report import COMPARED_FRAMES, RenderViews, field_renderer
from dreambooth3d.evaluation.truth import edited_truth, true_attributes, true_views
from dreambooth3d.evaluation.views import judge_views, judged_cameras
from dreambooth3d.glossary import meanings
from dreambooth3d.prompts import without_identifier
from dreambooth3d.runtime import Runtime
from dreambooth3d.toybox.contexts import Attributes, parse_prompt

EDITED, SOURCE, TRUTH = "edited", "source", "truth"
SUFFIXES = {EDITED: "", SOURCE: "_source", TRUTH: "_truth"}
COMPARED_WITH_TRUTH = ("psnr", "psnr_fg", "mask_iou", "color_error")

NAMES = (
    "clip_t", "attribute_accuracy", "colour_accuracy", "second_colour_accuracy", "pattern_accuracy",
    "accessory_accuracy", "accessory_colour_accuracy", "view_accuracy", "janus_rate", "front_recall",
    *COMPARED_WITH_TRUTH,
)  # fmt: skip
DEFINITIONS = meanings(NAMES, "evaluate_context_*/")
_SUFFIX_DEFINITIONS = {
    "_source": "{} of the asset before the edit, by the same captions and the same truth.",
    "_truth": "{} of true renders of the edited subject: what a perfect edit would score.",
}


@dataclass(frozen=True)
class _Question:
    """What the judge is asked about each set of views; the turntable's 36 come first, then those of the upper ring.

    Attributes:
        judge: who is asked.
        class_noun: of the subject.
        asked: the attributes that the prompt names.
        wanted: those and, where the truth is known, all others of the edited subject, so that captions say it all.
        caption: that the edited subject should fit.
        cameras: of the views.
        truth: views of the true edited subject, or None.
    """

    judge: ClipScorer
    class_noun: str
    asked: dict[str, str]
    wanted: Attributes
    caption: str
    cameras: Cameras
    truth: Views | None


def evaluate_context(
    asset: RadianceField,
    source: RadianceField,
    prompt: str,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: ClipScorer,
    config: EvaluateConfig,
    runtime: Runtime,
    render_views: RenderViews | None = None,
) -> EvaluationReport:
    """Score the asset that was made for one context, beside the asset that it was made from.

    Args:
        asset: the edited field.
        source: the field before the edit.
        prompt: of the context, with the subject's identifier.
        photos: the subject's photos, for its names.
        truth: of the unedited subject. Where it is known and the toybox can express the prompt, the true edited subject
            is known as well.
        judge: a scorer that steered nothing.
        config: size and sampling of the scored renders.
        runtime: log and device.
        render_views: replaces the rendering of a field.

    Returns:
        Metrics named as in `DEFINITIONS` for the edited asset, and with the endings of `SUFFIXES` for the rest.
        Attributes are scored where the prompt fits the toybox's grammar, whoever the subject is.
    """
    render_views = render_views or field_renderer(config, runtime)
    question = _question(prompt, photos, truth, judge, config)
    views = {EDITED: render_views(asset, question.cameras), SOURCE: render_views(source, question.cameras)}
    if question.truth is not None:
        views[TRUTH] = question.truth
    metrics: dict[str, float] = {}
    tables = []
    for name, shown in views.items():
        values, table = _score(name, shown, question)
        metrics |= {f"{key}{SUFFIXES[name]}": value for key, value in values.items()}
        tables.append(table)
    comparison = comparison_sheet(views)
    runtime.log.params(**config.model_dump(), prompt=prompt, caption=question.caption, truth=question.truth is not None)
    runtime.log.metrics(**metrics)
    runtime.log.image("comparison", comparison)
    definitions = {name: _definition(name) for name in metrics}
    return EvaluationReport(
        metrics, definitions, pd.concat(tables, ignore_index=True), comparison, runtime.log.record()
    )


def comparison_sheet(views: dict[str, Views]) -> Float[Tensor, "3 height width"]:
    """(3, height, width): source, true edit and edited asset at 8 azimuths from the front counter-clockwise."""
    rows = {name: views[name].images[list(COMPARED_FRAMES)] for name in (SOURCE, TRUTH, EDITED) if name in views}
    return labelled_rows(rows, columns=len(COMPARED_FRAMES))


def _question(
    prompt: str, photos: SubjectPhotos, truth: GroundTruth, judge: ClipScorer, config: EvaluateConfig
) -> _Question:
    """Gather what the views are compared with."""
    cameras, edited = judged_cameras(), edited_truth(truth, prompt, photos.identifier)
    asked = parse_prompt(prompt, photos.identifier, photos.class_noun)
    wanted = true_attributes(edited) if edited.known else asked
    return _Question(
        judge=judge,
        class_noun=photos.class_noun,
        asked={} if asked is None else asked.named,
        wanted=wanted or Attributes(),
        caption=without_identifier(prompt, photos.identifier) if wanted is None else wanted.caption(photos.class_noun),
        cameras=cameras,
        truth=true_views(edited, cameras, config.size) if edited.known else None,
    )


def _score(name: str, views: Views, question: _Question) -> tuple[dict[str, float], pd.DataFrame]:
    """The metrics of one set of views, and a table with a row per turntable view."""
    judge, noun = question.judge, question.class_noun
    features = judge.image_features(views.images)
    turntable = features[:TURNTABLE_FRAMES]
    fit = turntable @ judge.text_features([question.caption])[0]
    words = {
        attribute: preferred_words(turntable, question.wanted.rival_captions(attribute, noun), judge)
        for attribute in question.asked
    }
    verdict = judge_views(features, question.cameras, noun, judge)
    metrics = {"clip_t": fit.mean().item(), **_accuracies(question.asked, words), "view_accuracy": verdict.accuracy}
    metrics |= {"janus_rate": verdict.janus_rate, "front_recall": verdict.front_recall}
    pixels: dict[str, Tensor] = {}
    if question.truth is not None and name != TRUTH:
        shown, true = views[:TURNTABLE_FRAMES], question.truth[:TURNTABLE_FRAMES]
        pixels = {key: PIXEL_METRICS[key](shown, true) for key in COMPARED_WITH_TRUTH}
        metrics |= {key: values.nanmean().item() for key, values in pixels.items() if not values.isnan().all()}
    azimuths = question.cameras.azimuth_deg[:TURNTABLE_FRAMES].tolist()
    columns = {"asset": name, "view": range(TURNTABLE_FRAMES), "azimuth_deg": azimuths, "clip_t": fit.tolist()}
    return metrics, pd.DataFrame(columns | words | {key: values.tolist() for key, values in pixels.items()})


def preferred_words(features: Float[Tensor, "n features"], captions: dict[str, str], judge: ClipScorer) -> list[str]:
    """For each of the image features (n, d) the word whose caption fits it best."""
    words, texts = list(captions), judge.text_features(list(captions.values()))
    return [words[index] for index in (features @ texts.T).argmax(dim=-1).tolist()]


def _accuracies(asked: dict[str, str], found: dict[str, list[str]]) -> dict[str, float]:
    """Shares of the views with the asked words: each attribute's, and that of all together."""
    right = {name: torch.tensor([word == asked[name] for word in words]) for name, words in found.items()}
    if not right:
        return {}
    shares = {f"{name}_accuracy": values.float().mean().item() for name, values in right.items()}
    return {"attribute_accuracy": torch.stack(list(right.values())).all(dim=0).float().mean().item(), **shares}


def _definition(name: str) -> str:
    """The sentence that defines a metric, endings included."""
    for suffix, sentence in _SUFFIX_DEFINITIONS.items():
        if name.endswith(suffix):
            return sentence.format(name.removesuffix(suffix))
    return DEFINITIONS[name]
