"""Choosing the partial and the full DreamBooth checkpoint by measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dreambooth3d.artifacts import CheckpointChoice, CheckpointSet, DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.finetuning import SelectConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation.clip import ClipScorer, view_captions
from dreambooth3d.evaluation.figures import plot_scores
from dreambooth3d.images import captioned, sheet
from dreambooth3d.prompts import view_prompt
from dreambooth3d.runtime import Runtime

BASELINE_STEP = 0
_SERIES = ("subject_similarity", "view_obedience")

SampleViews = Callable[[DreamBoothCheckpoint | None, list[str]], Tensor]
"""Draws one image (n, 3, h, w) per prompt from a checkpoint, None for the base model, always under the same seed."""


def select(
    checkpoints: CheckpointSet,
    photos: SubjectPhotos,
    scorer: ClipScorer,
    config: SelectConfig,
    seed: int,
    runtime: Runtime,
    sample_views: SampleViews | None = None,
) -> CheckpointChoice:
    """Choose two checkpoints: `full` knows the subject, `partial` knows it and still obeys the prompt's view.

    Each checkpoint, and the base model as a baseline, draws the same prompts ("a photo of a sks dog, front view") from
    the same noise. Checkpoints are loaded one after the other.

    Args:
        checkpoints: handles of one fine-tuning run.
        photos: the subject.
        scorer: the selector, never the judge.
        config: sampling and decision.
        seed: of the samples.
        runtime: log and resumable state; scored checkpoints are not scored again after an interruption.
        sample_views: replaces the sampling from the checkpoints.

    Raises:
        ConfigError: a forced step is no checkpoint, or there is no checkpoint at all.
    """
    steps = [step for step in checkpoints.steps if step != BASELINE_STEP]
    _check_forced(steps, config)
    sample_views = sample_views or _diffusion_sampler(checkpoints, config, seed, runtime)
    rows, samples = _score_all(steps, checkpoints, photos, scorer, config, runtime, sample_views)
    scores = pd.DataFrame(rows)
    partial, full, reason = choose(scores, config)
    scores = mark_choice(scores, partial, full, config)
    _log_choice(scores, samples, partial, full, reason, config, runtime)
    return CheckpointChoice(scores, partial, full, reason, runtime.log.record())


def choose(scores: pd.DataFrame, config: SelectConfig) -> tuple[int, int, str]:
    """Decide from measured scores alone.

    `full` is the first step within `plateau_tolerance` of the best subject similarity; `partial` is the step before it
    with the best harmonic mean of both normalised scores, ties to the earlier. A forced step replaces either.

    Args:
        scores: rows with step, subject_similarity, view_obedience; step 0 is the base model, a baseline only.

    Returns:
        partial step, full step, and the reason in one sentence.

    Raises:
        ConfigError: no checkpoint but the baseline, a forced step that was not scored, or partial after full.
    """
    trained = scores[scores["step"] != BASELINE_STEP].sort_values("step")
    _check_forced(trained["step"].tolist(), config)
    similarity = trained.set_index("step")["subject_similarity"]
    plateau = similarity[similarity >= similarity.max() * (1 - config.plateau_tolerance)]
    full = int(plateau.index[0]) if config.full_step is None else config.full_step
    means = harmonic_means(scores).loc[trained["step"].tolist()]
    earlier = means[means.index < full]
    if config.partial_step is not None:
        partial = config.partial_step
    else:
        partial = full if earlier.empty else int(earlier.idxmax())
    if partial > full:
        raise ConfigError(
            f"select_checkpoints: the partial step {partial} comes after the full step {full}. Force an earlier"
            " select_checkpoints.partial_step or a later full_step."
        )
    return partial, full, _reason(trained.set_index("step"), means, partial, full, config)


def harmonic_means(scores: pd.DataFrame) -> pd.Series:
    """Harmonic mean of normalised subject similarity and view obedience, by step.

    Cosines of unrelated images are far from 0, so similarity counts from the base model's (where it was scored) up to
    the best one; obedience counts relative to the best one.
    """
    table = scores.set_index("step")[["subject_similarity", "view_obedience"]].astype(float).sort_index()
    best = table.drop(index=BASELINE_STEP, errors="ignore").max()
    floor = table["subject_similarity"].get(BASELINE_STEP, 0.0)
    if best["subject_similarity"] <= floor:
        floor = 0.0
    similarity = ((table["subject_similarity"] - floor) / (best["subject_similarity"] - floor)).clip(0, 1)
    obedience = (table["view_obedience"] / max(best["view_obedience"], 1e-9)).clip(0, 1)
    return (2 * similarity * obedience / (similarity + obedience).clip(lower=1e-9)).rename("harmonic_mean")


def mark_choice(scores: pd.DataFrame, partial: int, full: int, config: SelectConfig) -> pd.DataFrame:
    """The score table with harmonic_mean and the flags partial, full and forced."""
    table = scores.sort_values("step", ignore_index=True)
    table["harmonic_mean"] = table["step"].map(harmonic_means(scores))
    table["partial"] = table["step"] == partial
    table["full"] = table["step"] == full
    table["forced"] = table["step"].isin([step for step in (config.partial_step, config.full_step) if step is not None])
    return table


def score_samples(
    images: Tensor, asked: Tensor, photo_features: Tensor, view_features: Tensor, scorer: ClipScorer
) -> dict[str, float]:
    """Score one checkpoint's samples.

    Args:
        images: (n, 3, h, w) in [0, 1].
        asked: (n,) index into `VIEW_WORDS` of the view that each prompt asked for.
        photo_features: (photos, d) of unit length.
        view_features: (4, d), the class's view captions.

    Returns:
        subject_similarity: mean cosine over all pairs of a sample and a photo, CLIP-I as DreamBooth (Ruiz et al. 2023)
        defines it; nearest_photo: mean cosine with the nearest photo, which rises when samples copy photos;
        view_obedience: share of samples that the selector puts into the asked view, and that share per view.
    """
    features = scorer.image_features(images)
    cosines = features @ photo_features.T
    obeyed = ((features @ view_features.T).argmax(dim=-1) == asked).float()
    row = {
        "subject_similarity": cosines.mean().item(),
        "nearest_photo": cosines.max(dim=1).values.mean().item(),
        "view_obedience": obeyed.mean().item(),
    }
    return row | {f"obedience_{word}": obeyed[asked == index].mean().item() for index, word in enumerate(VIEW_WORDS)}


def _check_forced(steps: list[int], config: SelectConfig) -> None:
    """Refuse an empty checkpoint set and forced steps that are not in it, before anything is computed."""
    if not steps:
        raise ConfigError(
            "select_checkpoints: there is no checkpoint to choose from. Lower finetune_dreambooth.checkpoint_every."
        )
    for name, step in (("partial_step", config.partial_step), ("full_step", config.full_step)):
        if step is not None and step not in steps:
            raise ConfigError(
                f"select_checkpoints.{name}: no checkpoint was saved at step {step}. Choose one of"
                f" {', '.join(map(str, steps))}, or change finetune_dreambooth.checkpoint_every."
            )


def _reason(table: pd.DataFrame, means: pd.Series, partial: int, full: int, config: SelectConfig) -> str:
    similarity, obedience = table["subject_similarity"], table["view_obedience"]
    if config.full_step is not None:
        text = f"full is step {full}, as forced (similarity {similarity[full]:.3f}, best {similarity.max():.3f})"
    else:
        text = (
            f"full is step {full}, the first whose subject similarity ({similarity[full]:.3f}) is within"
            f" {config.plateau_tolerance:.1%} of the best ({similarity.max():.3f})"
        )
    figures = f"similarity {similarity[partial]:.3f}, view obedience {obedience[partial]:.0%}"
    if config.partial_step is not None:
        return f"{text}; partial is step {partial}, as forced ({figures})"
    if partial == full:
        return f"{text}; warning: no earlier checkpoint exists, so partial is the same step ({figures})"
    return (
        f"{text}; partial is step {partial}, the earlier step with the best harmonic mean of both"
        f" ({means[partial]:.2f}; {figures}, against {obedience[full]:.0%} at step {full})"
    )


def _score_all(
    steps: list[int],
    checkpoints: CheckpointSet,
    photos: SubjectPhotos,
    scorer: ClipScorer,
    config: SelectConfig,
    runtime: Runtime,
    sample_views: SampleViews,
) -> tuple[list[dict[str, float]], dict[int, Tensor]]:
    """Score the base model and every checkpoint, continuing from an interrupted state."""
    prompts = [view_prompt(photos.instance_prompt, word) for word in VIEW_WORDS for _ in range(config.samples_per_view)]
    asked = torch.arange(len(VIEW_WORDS)).repeat_interleave(config.samples_per_view)
    photo_features = torch.cat([scorer.image_features(image[None]) for image in photos.images])
    view_features = scorer.text_features(view_captions(photos.class_noun))
    point = runtime.resume_point()
    rows, samples = _restore(point.load(), runtime)
    for step in [BASELINE_STEP, *steps]:
        if step in samples:
            continue
        if runtime.should_stop() and any(done in steps for done in samples) and not _forced_left(samples, config):
            break
        images = sample_views(None if step == BASELINE_STEP else checkpoints.checkpoints[step], prompts)
        samples[step] = images.detach().float().cpu().clamp(0, 1)
        rows.append({"step": step} | score_samples(samples[step], asked, photo_features, view_features, scorer))
        runtime.log.scalars(step, **{name: rows[-1][name] for name in _SERIES})
        if point.due():
            point.save({"rows": rows, "samples": {str(done): value for done, value in samples.items()}})
    point.clear()
    return rows, samples


def _forced_left(samples: Mapping[int, Tensor], config: SelectConfig) -> bool:
    """Whether a forced step still has to be scored."""
    return any(step is not None and step not in samples for step in (config.partial_step, config.full_step))


def _restore(state: dict[str, Any] | None, runtime: Runtime) -> tuple[list[dict[str, float]], dict[int, Tensor]]:
    if state is None:
        return [], {}
    for row in state["rows"]:
        runtime.log.scalars(int(row["step"]), **{name: row[name] for name in _SERIES})
    return list(state["rows"]), {int(step): value for step, value in state["samples"].items()}


def _diffusion_sampler(checkpoints: CheckpointSet, config: SelectConfig, seed: int, runtime: Runtime) -> SampleViews:
    """Sampling by the diffusion model; a checkpoint's weights are dropped before the next are loaded."""
    from dreambooth3d.diffusion.model.components import load_components
    from dreambooth3d.diffusion.sampling.text_to_image import Sampling, sample

    sampling = Sampling(config.guidance_scale, config.inference_steps, seed, batch_size=config.batch_size)

    def sample_views(checkpoint: DreamBoothCheckpoint | None, prompts: list[str]) -> Tensor:
        components = load_components(checkpoints.base_model, runtime.device, checkpoint)
        return sample(components, prompts, sampling)

    return sample_views


def _log_choice(
    scores: pd.DataFrame,
    samples: Mapping[int, Tensor],
    partial: int,
    full: int,
    reason: str,
    config: SelectConfig,
    runtime: Runtime,
) -> None:
    log, by_step = runtime.log, scores.set_index("step")
    log.params(**config.model_dump(exclude_none=True), reason=reason)
    log.metrics(partial_step=partial, full_step=full)
    for name, step in (("partial", partial), ("full", full)):
        log.metrics(**{f"{name}_{column}": by_step.loc[step, column] for column in _SERIES})
    log.image("scores", plot_scores(scores))
    log.image("contact_sheet", contact_sheet(samples))


def contact_sheet(samples: Mapping[int, Tensor]) -> Tensor:
    """(3, h, w): one row per step, one column per view; each cell is that view's first sample, at most 128 pixels."""
    first, captions = [], []
    for step in sorted(samples):
        images = samples[step]
        per_view = images.shape[0] // len(VIEW_WORDS)
        first.append(images[::per_view])
        of = "base model" if step == BASELINE_STEP else f"step {step}"
        captions += [f"{of}, {word}" for word in VIEW_WORDS]
    cells = torch.cat(first)
    if cells.shape[-1] > 128:
        cells = torch.nn.functional.interpolate(cells, size=(128, 128), mode="area")
    return sheet(captioned(cells, captions), columns=len(VIEW_WORDS))
