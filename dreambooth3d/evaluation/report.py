"""The evaluation of an asset by the judge, and against ground truth where it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.artifacts import EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_FRAMES, VIEW_WORDS, Cameras, turntable_cameras, wrap_degrees
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation.alignment import fit_alignment
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.evaluation.distractors import competing_captions
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.evaluation.heldout import DEFINITIONS as HELD_OUT_DEFINITIONS
from dreambooth3d.evaluation.heldout import HeldOutViews, compare_held_out
from dreambooth3d.evaluation.pixels import BASELINES, PIXEL_METRICS, Views, pixel_metrics
from dreambooth3d.evaluation.truth import published_captions, true_caption, true_views
from dreambooth3d.evaluation.views import ViewVerdict, judge_views, judged_cameras
from dreambooth3d.glossary import PREFIXES, meanings
from dreambooth3d.runtime import Runtime

NEAR_PHOTO_DEG = 20.0
COMPARED_FRAMES = (0, 4, 9, 13, 18, 22, 27, 31)
REFINED, COARSE, TRUTH = "refined", "coarse", "truth"

NAMES = (
    "clip_i", "clip_t", "r_precision", "view_accuracy", "janus_rate", "janus_rate_truth", "janus_excess",
    "front_recall", *PIXEL_METRICS, "rotation_deg", "scale",
)  # fmt: skip
DEFINITIONS = meanings(NAMES) | HELD_OUT_DEFINITIONS

RenderViews = Callable[[RadianceField, Cameras], Views]
"""Renders a field on white from n cameras."""


@dataclass(frozen=True)
class _Reference:
    """What renders are compared with; the turntable's 36 views come first, then those of the upper ring.

    Attributes:
        photo_features: (photos, d).
        captions: the competing captions of R-precision, empty where it is not defined.
        caption_index: place of the true one among them.
        caption_feature: (d,), for clip_t.
        truth: the true views, or None.
    """

    photo_features: Float[Tensor, "photos features"]
    captions: list[str]
    caption_index: int
    caption_feature: Float[Tensor, " features"]
    truth: Views | None


def evaluate(
    asset: RadianceField,
    coarse: RadianceField,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: ClipScorer,
    config: EvaluateConfig,
    runtime: Runtime,
    render_views: RenderViews | None = None,
) -> EvaluationReport:
    """Score the refined and the coarse asset, and three baselines where the truth is known.

    Args:
        asset: the final field.
        coarse: the first field.
        photos: the subject's photos, as the user gave them; those held out are compared with the asset.
        truth: where it is known, true views are rendered from its recipe.
        judge: a scorer that steered nothing.
        config: size and sampling of the scored renders.
        runtime: log and device.
        render_views: replaces the rendering of a field.

    Returns:
        Metrics named as in `DEFINITIONS` for the refined asset, and with the prefixes of `PREFIXES` for the rest.
    """
    render_views = render_views or field_renderer(config, runtime)
    cameras = judged_cameras()
    reference = _reference(photos, truth, judge, cameras, config)
    renders = {REFINED: render_views(asset, cameras), COARSE: render_views(coarse, cameras)}
    metrics: dict[str, float] = {}
    tables = []
    if reference.truth is not None:
        true_metrics, table = _judge_asset(TRUTH, reference.truth, reference, photos, judge, cameras)
        metrics |= {f"truth/{name}": value for name, value in true_metrics.items()}
        tables.append(table)
        metrics |= _baseline_metrics(reference.truth[:TURNTABLE_FRAMES])
    for name, views in renders.items():
        values, table = _score_asset(name, views, reference, photos, judge, cameras)
        values |= _janus_excess(values, metrics)
        if name == REFINED and reference.truth is not None:
            values |= _by_photo_distance(table, truth)
            values |= _aligned_metrics(lambda where: render_views(asset, where), views, reference.truth, cameras)
        metrics |= {f"{'' if name == REFINED else f'{name}/'}{key}": value for key, value in values.items()}
        tables.append(table)
    held_out = compare_held_out(asset, photos, config, runtime)
    metrics |= {} if held_out is None else held_out.metrics()
    comparison = comparison_sheet(photos, reference.truth, renders, held_out)
    _log(metrics, comparison, reference, config, runtime)
    names = {name.rpartition("/")[2] for name in metrics}
    definitions = {name: text for name, text in DEFINITIONS.items() if name in names} | _used_prefixes(metrics)
    table = pd.concat(tables, ignore_index=True)
    return EvaluationReport(metrics, definitions, table, comparison, runtime.log.record())


def comparison_sheet(
    photos: SubjectPhotos, truth: Views | None, renders: dict[str, Views], held_out: HeldOutViews | None = None
) -> Float[Tensor, "3 height width"]:
    """(3, height, width): photos, then truth, refined and coarse at 8 azimuths from the front counter-clockwise.

    Below, where there are any: held-out photos, the asset from their cameras, and the mean of the training photos.
    """
    size = next(iter(renders.values())).images.shape[-1]
    rows = {"photos": photos.resized(max(size, 128))}
    frames = list(COMPARED_FRAMES)
    if truth is not None:
        rows[TRUTH] = truth.images[frames]
    rows |= {name: views.images[frames] for name, views in renders.items()}
    rows |= {} if held_out is None else held_out.rows()
    return labelled_rows(rows, columns=len(frames))


def baselines_sheet(truth: Views) -> Float[Tensor, "3 height width"]:
    """(3, height, width): truth and the three baselines at 8 azimuths."""
    turntable, frames = truth[:TURNTABLE_FRAMES], list(COMPARED_FRAMES)
    rows = {TRUTH: turntable.images[frames]}
    rows |= {name: baseline(turntable).images[frames] for name, baseline in BASELINES.items()}
    return labelled_rows(rows, columns=len(frames))


def field_renderer(config: EvaluateConfig, runtime: Runtime) -> RenderViews:
    """Rendering by the asset's own renderer, on white."""
    from dreambooth3d.kinds import render_asset

    def render_views(field: RadianceField, cameras: Cameras) -> Views:
        rendering = render_asset(
            field, cameras, size=config.size, samples_per_ray=config.samples_per_ray, background="white",
            device=runtime.device,
        )  # fmt: skip
        color, opacity, depth = (
            values.detach().float().cpu() for values in (rendering.color, rendering.opacity, rendering.depth)
        )
        return Views(color.clamp(0, 1), opacity, depth)

    return render_views


def _reference(
    photos: SubjectPhotos, truth: GroundTruth, judge: ClipScorer, cameras: Cameras, config: EvaluateConfig
) -> _Reference:
    """Gather what the renders are compared with; a known truth goes before the user's description."""
    captions: list[str] = []
    caption = photos.description or photos.class_prompt
    if truth.known:
        caption, captions = true_caption(truth), published_captions(truth)
    elif photos.description:
        captions = competing_captions(photos.description, photos.class_noun)
        caption = captions[0]
    return _Reference(
        photo_features=torch.cat([judge.image_features(image[None]) for image in photos.images]),
        captions=captions,
        caption_index=captions.index(caption) if captions else 0,
        caption_feature=judge.text_features([caption])[0],
        truth=true_views(truth, cameras, config.size) if truth.known else None,
    )


def _score_asset(
    name: str, views: Views, reference: _Reference, photos: SubjectPhotos, judge: ClipScorer, cameras: Cameras
) -> tuple[dict[str, float], pd.DataFrame]:
    """The judge's metrics of one asset and, where the truth is known, the pixel metrics; with a per-view table."""
    metrics, table = _judge_asset(name, views, reference, photos, judge, cameras)
    if reference.truth is not None:
        pixels = pixel_metrics(views[:TURNTABLE_FRAMES], reference.truth[:TURNTABLE_FRAMES])
        metrics |= _means(pixels)
        table = table.assign(**{key: value.tolist() for key, value in pixels.items()})
    return metrics, table


def _judge_asset(
    name: str, views: Views, reference: _Reference, photos: SubjectPhotos, judge: ClipScorer, cameras: Cameras
) -> tuple[dict[str, float], pd.DataFrame]:
    """What the judge says of one asset: means over the turntable, and one row per turntable view."""
    features = judge.image_features(views.images)
    turntable = features[:TURNTABLE_FRAMES]
    verdict = judge_views(features, cameras, photos.class_noun, judge)
    columns = {
        "clip_i": (turntable @ reference.photo_features.T).mean(dim=1),
        "clip_t": turntable @ reference.caption_feature,
    }
    if reference.captions:
        scores = turntable @ judge.text_features(reference.captions).T
        columns["caption_rank"] = caption_rank(scores, reference.caption_index)
    metrics = {key: columns[key].mean().item() for key in ("clip_i", "clip_t")}
    if reference.captions:
        metrics["r_precision"] = (columns["caption_rank"] == 1).float().mean().item()
    metrics |= _view_shares(verdict)
    return metrics, _view_table(name, columns, verdict)


def caption_rank(scores: Float[Tensor, "n captions"], true_index: int) -> Int[Tensor, " n"]:
    """(n,) rank from 1 of the true caption by scores (n, captions); it loses ties."""
    rivals = torch.cat([scores[:, :true_index], scores[:, true_index + 1 :]], dim=1)
    return 1 + (rivals >= scores[:, true_index, None]).sum(dim=1)


def _view_shares(verdict: ViewVerdict) -> dict[str, float]:
    return {
        "view_accuracy": verdict.accuracy,
        "janus_rate": verdict.janus_rate,
        "front_recall": verdict.front_recall,
    }


def _view_table(name: str, columns: dict[str, Tensor], verdict: ViewVerdict) -> pd.DataFrame:
    """One row per turntable view."""
    cameras = turntable_cameras()
    judged = verdict.judged[:TURNTABLE_FRAMES].tolist()
    return pd.DataFrame(
        {
            "asset": name,
            "view": range(TURNTABLE_FRAMES),
            "azimuth_deg": cameras.azimuth_deg.tolist(),
            "elevation_deg": cameras.elevation_deg.tolist(),
            "true_view": cameras.view_words(),
            "judged_view": [VIEW_WORDS[index] for index in judged],
        }
        | {key: value.tolist() for key, value in columns.items()}
    )


def _baseline_metrics(truth: Views) -> dict[str, float]:
    """Pixel metrics of the three baselines over the turntable."""
    return {
        f"baseline_{name}/{key}": value
        for name, baseline in BASELINES.items()
        for key, value in _means(pixel_metrics(baseline(truth), truth)).items()
    }


def _means(values: dict[str, Tensor]) -> dict[str, float]:
    """Mean over the views where a metric is defined, of those that are defined anywhere."""
    return {name: each.nanmean().item() for name, each in values.items() if not each.isnan().all()}


def _by_photo_distance(table: pd.DataFrame, truth: GroundTruth) -> dict[str, float]:
    """Means of the pixel metrics over the views near a photo, and over those far from all."""
    if not truth.photo_azimuths_deg:
        return {}
    apart = torch.tensor(table["azimuth_deg"].tolist())[:, None] - torch.tensor(truth.photo_azimuths_deg)
    near = wrap_degrees(apart).abs().min(dim=1).values <= NEAR_PHOTO_DEG
    measured = [name for name in PIXEL_METRICS if name in table]
    return {
        f"{where}/{name}": value
        for where, chosen in (("near", near), ("far", ~near))
        for name, value in _means({name: torch.tensor(table[name].tolist())[chosen] for name in measured}).items()
    }


def _aligned_metrics(
    render: Callable[[Cameras], Views], views: Views, truth: Views, cameras: Cameras
) -> dict[str, float]:
    """Pixel metrics over the turntable of the asset after the alignment that was fitted on the upper ring."""
    ring, turntable = slice(TURNTABLE_FRAMES, None), slice(TURNTABLE_FRAMES)
    alignment = fit_alignment(render, views[ring], truth[ring], cameras[ring])
    aligned = _means(pixel_metrics(alignment.views(render, cameras[turntable]), truth[turntable]))
    aligned |= {"rotation_deg": alignment.azimuth_deg, "scale": alignment.scale}
    return {f"aligned/{name}": value for name, value in aligned.items()}


def _janus_excess(values: dict[str, float], metrics: dict[str, float]) -> dict[str, float]:
    """The Janus rate of truth and the excess over it, where truth is known."""
    if "truth/janus_rate" not in metrics:
        return {}
    rate = metrics["truth/janus_rate"]
    return {"janus_rate_truth": rate, "janus_excess": values["janus_rate"] - rate}


def _used_prefixes(metrics: dict[str, float]) -> dict[str, str]:
    return {prefix: text for prefix, text in PREFIXES.items() if any(name.startswith(prefix) for name in metrics)}


def _log(
    metrics: dict[str, float], comparison: Tensor, reference: _Reference, config: EvaluateConfig, runtime: Runtime
) -> None:
    runtime.log.params(**config.model_dump(), ground_truth=reference.truth is not None)
    runtime.log.metrics(**metrics)
    runtime.log.image("comparison", comparison)
    if reference.truth is not None:
        runtime.log.image("baselines", baselines_sheet(reference.truth))
