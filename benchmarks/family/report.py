"""The report: a table of the presets, one row per prompt, a picture of every asset, and all figures in JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.family import personalised_report
from benchmarks.family.personalised import finished_runs, validated
from benchmarks.family.pictures import resized, two_columns
from benchmarks.family.plan import DEVELOPMENT_PROMPTS, PRESETS, PROMPT_SEED, TEST_PROMPTS, prompt_of
from benchmarks.quality import statistics
from benchmarks.quality.plan import Run
from benchmarks.quality.report import markdown
from benchmarks.quality.results import Results
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.images import to_pil

STEM, SECTION = "family", "text_to_3d"
METRICS = {
    "r_precision": ("R-precision", 3),
    "clip_t": ("CLIP-T", 3),
    "clip_t_truth": ("CLIP-T of truth", 3),
    "colour_accuracy": ("colour", 3),
    "janus_excess": ("Janus excess", 3),
    "janus_rate_truth": ("Janus rate of truth", 3),
    "front_recall": ("front recall", 3),
    "front_recall_truth": ("front recall of truth", 3),
    "view_accuracy": ("view accuracy", 3),
    "seconds": ("seconds", 1),
    "peak_gib": ("peak GiB", 2),
}
"""Title and decimals of each metric."""
WANTED = {"r_precision": (0.8, "at least"), "janus_excess": (0.1, "at most")}
OVERVIEW_PROMPTS = 3
PER_PROMPT = ("r_precision", "janus_excess", "front_recall")
NOTE = (
    "R-precision is among the captions of all 20 prompts. The truth's figures are those of two toybox subjects that "
    "each prompt describes, drawn at random, as the same judge sees them: there is no pixel metric, since a prompt "
    "fixes no truth. Seconds are those of an asset (guide and distillation, without its evaluation) while others were "
    "made beside it; peak memory is the GPU memory that one run's tensors took."
)


def table_of(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run: method, subject (the prompt's name), seed, the metrics, and what an asset costs."""
    rows = []
    for run in results:
        stages = {name: value for name, value in run["seconds"].items() if name != "evaluate_prompt"}
        memory = [value for name, value in run["peak_mib"].items() if name != "evaluate_prompt"]
        about = {"method": run["method"], "subject": run["subject"], "seed": run["seed"]}
        costs = {"seconds": sum(stages.values()), "peak_gib": max(memory, default=0.0) / 1024}
        rows.append(about | costs | dict(run["metrics"]))
    return pd.DataFrame(rows)


def figures(table: pd.DataFrame, presets: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """The means of each preset over the prompts of a table, and how many these are."""
    found: dict[str, dict[str, float | int]] = {}
    for name in presets:
        means = {metric: statistics.mean(table, name, metric).mean for metric in METRICS}
        known: dict[str, float | int] = {key: round(mean, 5) for key, mean in means.items() if not math.isnan(mean)}
        found[name] = known | {"prompts": int(table[table["method"] == name]["subject"].nunique())}
    return found


def write(runs: Sequence[Run], results: Results, folder: Path, personalised: Results | None = None) -> None:
    """Write `family.md`, `family.json` and the pictures; sections of that JSON that others have written stay.

    Args:
        runs: of the prompts, of which the finished ones are reported.
        results: where these are.
        folder: of the report.
        personalised: where the personalised ones are, of which all that are finished are reported.
    """
    finished = results.load(list(runs))
    done = [] if personalised is None else finished_runs(personalised)
    if not finished and not done:
        return
    parts, sections = [], {}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{STEM}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    if finished:
        table = table_of(finished)
        presets = [name for name in PRESETS if name in set(table["method"])]
        pictures = _write_pictures(presets, runs, results, folder)
        _write_overview(presets, runs, results, folder / f"{STEM}.webp")
        parts += _sections(table, presets, finished, pictures)
        sections |= _prompted_figures(table, presets, finished, kept.get(SECTION, {}))
    if personalised is not None and done:
        loaded = validated(done, personalised)
        pictures = personalised_report.write_pictures(done, personalised, folder)
        parts += personalised_report.sections(loaded, pictures)
        sections |= personalised_report.figures(personalised_report.table_of(loaded))
    (folder / f"{STEM}.md").write_text("\n\n".join(["# The family", *parts]) + "\n")
    file.write_text(json.dumps({**kept, **sections}, indent=1) + "\n")


def _prompted_figures(
    table: pd.DataFrame, presets: Sequence[str], finished: Sequence[Mapping[str, Any]], kept: Mapping[str, Any]
) -> dict[str, Any]:
    """The sections of the JSON on assets from a prompt alone; of presets that are not in the table as they are kept."""
    about = {name: _joined(finished, name) for name in ("machine", "commit", "date", "side_by_side")}
    return {
        SECTION: {**kept, **figures(_test_prompts(table), presets)},
        "text_to_3d_all_prompts": figures(table, presets),
        "text_to_3d_about": about,
    }


def _test_prompts(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of prompts on which nothing was chosen; all of them where there are no others."""
    test = table[~table["subject"].isin(DEVELOPMENT_PROMPTS)]
    return test if len(test) else table


def _sections(
    table: pd.DataFrame, presets: Sequence[str], finished: Sequence[Mapping[str, Any]], pictures: Sequence[Path]
) -> Iterable[str]:
    """The parts of the Markdown file."""
    test = _test_prompts(table)
    yield "## From a prompt alone"
    yield (
        f"Printed by `python -m benchmarks.family`; {len(finished)} runs, {_joined(finished, 'machine')}, "
        f"{_joined(finished, 'side_by_side')}, commit {_joined(finished, 'commit')}, {_joined(finished, 'date')}. "
        f"Prompts of the toybox' colours and nouns, drawn with the seed {PROMPT_SEED}; the settings were chosen on "
        f"{', '.join(prompt_of(name) for name in DEVELOPMENT_PROMPTS)}. Means over the {test['subject'].nunique()} "
        "others; in brackets the 95 % interval of the bootstrap over prompts."
    )
    yield markdown(
        ["preset", *(title for title, _ in METRICS.values())],
        [[name, *(_shown(test, name, metric) for metric in METRICS)] for name in presets],
    )
    yield "\n".join(f"- **{name}**: {PRESETS[name].note}." for name in presets)
    yield NOTE
    yield "### Targets"
    yield markdown(["target", *presets], [_target_row(test, presets, metric) for metric in WANTED])
    yield "### By prompt"
    names = list(dict.fromkeys(table["subject"]))
    header = [f"{name}: {METRICS[metric][0]}" for name in presets for metric in PER_PROMPT]
    yield markdown(["prompt", *header], [[prompt_of(name), *_prompt_row(table, presets, name)] for name in names])
    yield "### What happened in the runs"
    yield _incidents(finished)
    for picture in pictures:
        yield f"![{picture.stem}: front, left, back and right side of each asset]({picture.name})"


def _shown(table: pd.DataFrame, name: str, metric: str) -> str:
    value, digits = statistics.mean(table, name, metric), METRICS[metric][1]
    if math.isnan(value.mean):
        return ""
    if math.isnan(value.lo):
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} [{value.lo:.{digits}f}, {value.hi:.{digits}f}]"


def _target_row(table: pd.DataFrame, presets: Sequence[str], metric: str) -> list[str]:
    bound, word = WANTED[metric]
    row = [f"{METRICS[metric][0]} {word} {bound}"]
    for name in presets:
        mean = statistics.mean(table, name, metric).mean
        met = mean >= bound if word == "at least" else mean <= bound
        row.append("not measured" if math.isnan(mean) else f"{mean:.3f}, {'met' if met else '**not met**'}")
    return row


def _prompt_row(table: pd.DataFrame, presets: Sequence[str], prompt: str) -> Iterable[str]:
    for name in presets:
        for metric in PER_PROMPT:
            value = statistics.subject_means(table, name, metric).get(prompt, math.nan)
            yield "" if math.isnan(value) else f"{value:.2f}"


def _incidents(finished: Sequence[Mapping[str, Any]]) -> str:
    """Guards that tripped, and what they did."""
    lines = [
        f"- {run['method']}, {prompt_of(run['subject'])}, seed {run['seed']}: {value}"
        for run in finished
        for key, value in run["notes"].items()
        if key.endswith("guard_events") and value != "none"
    ]
    return "\n".join(lines) or "No guard tripped."


def _write_pictures(presets: Sequence[str], runs: Sequence[Run], results: Results, folder: Path) -> list[Path]:
    """One sheet per preset: a row per prompt, its asset from four sides."""
    written = []
    for name in presets:
        prompts = dict.fromkeys(run.subject for run in runs if run.method.name == name and run in results)
        found: dict[str, Tensor | None] = {prompt: results.views(name, prompt) for prompt in prompts}
        rows = {prompt.replace("_", " "): resized(views) for prompt, views in found.items() if views is not None}
        if rows:
            path = folder / f"{STEM}_{name}.webp"
            to_pil(two_columns(rows)).save(path, quality=88)
            written.append(path)
    return written


def _write_overview(presets: Sequence[str], runs: Sequence[Run], results: Results, path: Path) -> None:
    """A row per preset: the first test prompts that all of them have finished, each from four sides."""
    done = {(run.method.name, run.subject) for run in runs if run in results}
    prompts = [name for name in TEST_PROMPTS if all((preset, name) in done for preset in presets)][:OVERVIEW_PROMPTS]
    rows: dict[str, Tensor] = {}
    for preset in presets:
        views = [found for name in prompts if (found := results.views(preset, name)) is not None]
        if views:
            rows[preset] = resized(torch.cat(views))
    if rows:
        to_pil(labelled_rows(rows, columns=4 * len(prompts))).save(path, quality=88)


def _joined(finished: Sequence[Mapping[str, Any]], name: str) -> str:
    return ", ".join(sorted({str(run[name])[:60] for run in finished}))
