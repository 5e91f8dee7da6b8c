"""The benchmark's report: tables in Markdown, all figures in JSON, one picture per subject."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.quality import statistics
from benchmarks.quality.hindsight import hindsight_section
from benchmarks.quality.pictures import subject_sheet
from benchmarks.quality.plan import DEFAULT, Method, Run
from benchmarks.quality.results import Results
from benchmarks.quality.statistics import Estimate
from benchmarks.quality.targets import targets
from dreambooth3d.images import to_pil

METRICS = {
    "psnr_fg": ("psnr_fg (dB)", 2),
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "mask_iou": ("mask IoU", 3),
    "depth_error": ("depth error", 3),
    "color_error": ("colour error", 1),
    "chroma_excess": ("chroma excess", 1),
    "clip_t": ("CLIP-T", 3),
    "clip_i": ("CLIP-I", 3),
    "r_precision": ("R-precision", 3),
    "janus_excess": ("Janus excess", 3),
    "front_recall": ("front recall", 3),
    "seconds": ("wall time (s)", 0),
    "peak_mib": ("peak memory (MiB)", 0),
}
"""Title and decimals of each metric."""
TITLES = {
    "main": "the methods on the test subjects",
    "development": "the methods on the development subjects",
    "ablations": "what each technique brings",
    "hindsight": "is the automatic choice of a checkpoint as good as hindsight?",
    "gap": "where the gap to the ceiling comes from",
}
MIN_TELLING_SUBJECTS = 6
PICTURED = ("main", "development")
GROUPS = {
    "Against the truth": ("psnr_fg", "psnr", "ssim", "mask_iou", "depth_error", "color_error", "chroma_excess"),
    "As the judge sees it": ("clip_t", "clip_i", "r_precision", "janus_excess", "front_recall"),
    "Cost": ("seconds", "peak_mib"),
}
PLACES = {"near/psnr_fg": "near a photo", "far/psnr_fg": "far from all", "aligned/psnr_fg": "aligned"}
BASELINES = {"blank": "baseline_blank/", "mean_image": "baseline_mean/", "silhouette": "baseline_silhouette/"}
TRUTH = "truth"
COMPARED = ("psnr_fg", "psnr", "mask_iou", "depth_error", "color_error", "clip_t", "r_precision", "janus_excess")


def table_of(results: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row per run, and one per subject for each baseline and for the truth as the judge sees it."""
    rows: list[dict[str, Any]] = []
    told: dict[str, dict[str, float]] = {}
    for run in results:
        metrics = run["metrics"]
        about = {"method": run["method"], "subject": run["subject"], "seed": run["seed"]}
        costs = {"seconds": sum(run["seconds"].values()), "peak_mib": max(run["peak_mib"].values(), default=0.0)}
        rows.append(about | costs | {name: value for name, value in metrics.items() if not name.startswith("baseline")})
        told[run["subject"]] = metrics
    for subject, metrics in told.items():
        for name, prefix in {**BASELINES, TRUTH: "truth/"}.items():
            found = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
            rows.append({"method": name, "subject": subject, "seed": 0} | found)
    return pd.DataFrame(rows)


def write(name: str, runs: Sequence[Run], results: Results, folder: Path, command: str) -> None:
    """Write `quality.md`, `quality.json` (other tables: their own names) and the pictures of what is finished."""
    finished = results.load(list(runs))
    if not finished:
        return
    folder.mkdir(parents=True, exist_ok=True)
    table, methods = table_of(finished), list(dict.fromkeys(run.method for run in runs))
    stem = "quality" if name == "main" else f"quality_{name}"
    pictures = write_pictures(stem, runs, results, folder) if name in PICTURED else []
    text = "\n\n".join(_sections(name, table, methods, finished, pictures, command)) + "\n"
    (folder / f"{stem}.md").write_text(text)
    (folder / f"{stem}.json").write_text(json.dumps(figures(table, methods, finished), indent=1) + "\n")


def figures(table: pd.DataFrame, methods: Sequence[Method], finished: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All means and paired differences with their intervals, and where they come from."""
    names = [*(method.name for method in methods), *BASELINES]

    def estimates(name: str, estimate: Callable[[str], Estimate]) -> dict[str, dict[str, float | None]]:
        known = [each for each in [*METRICS, *PLACES] if len(statistics.subject_means(table, name, each))]
        return {metric: _plain(estimate(metric)) for metric in known}

    return {
        "methods": {name: estimates(name, partial(statistics.mean, table, name)) for name in names},
        "differences": {
            f"{DEFAULT}-{name}": estimates(name, partial(statistics.difference, table, DEFAULT, name))
            for name in names
            if name != DEFAULT
        },
        "subjects": sorted(set(table["subject"])),
        "runs": len(finished),
        "machine": _joined(finished, "machine"),
        "commit": _joined(finished, "commit"),
        "date": _joined(finished, "date"),
    }


COST_NOTE = (
    "Wall time is the sum over a run's stages while other runs went on beside it on the same machine; a stage that "
    "methods share counts in full for each. Peak memory is the GPU memory that one run's tensors took."
)


FEW_NOTE = (
    f"With fewer than {MIN_TELLING_SUBJECTS} subjects the bootstrap's intervals are too narrow, and they do not "
    "contain the spread of runs with the same seed; nothing is marked as significant."
)


def _sections(
    name: str,
    table: pd.DataFrame,
    methods: Sequence[Method],
    finished: Sequence[dict[str, Any]],
    pictures: Sequence[Path],
    command: str,
) -> Iterable[str]:
    """The parts of the Markdown file."""
    subjects = sorted(set(table["subject"]))
    yield f"# Quality: {TITLES.get(name, f'the variants of {name}')}"
    yield (
        f"Printed by `{command}`; {len(finished)} runs on {len(subjects)} subjects "
        f"({', '.join(subjects)}), {_joined(finished, 'machine')}, commit {_joined(finished, 'commit')}, "
        f"{_joined(finished, 'date')}. Means over subjects; in brackets the 95 % interval of the bootstrap over "
        "subjects."
    )
    names = [method.name for method in methods if method.name in set(table["method"])]
    if name == "hindsight":
        yield from hindsight_section(table, finished)
        return
    if name == "main":
        yield "## Targets"
        rows = [[each.wanted, each.measured, "yes" if each.met else "**no**"] for each in targets(table, finished)]
        yield markdown(["target", "measured", "met"], rows)
    for title, metrics in GROUPS.items():
        yield f"## {title}"
        shown = [each for each in [*names, *BASELINES, TRUTH] if _has_any(table, each, metrics)]
        yield markdown(["method", *(METRICS[metric][0] for metric in metrics)], _mean_rows(table, shown, metrics))
    yield COST_NOTE
    if any(len(statistics.subject_means(table, each, "psnr_fg")) < len(subjects) for each in names):
        yield _incomplete(table, names, subjects)
    yield "## By place, and aligned: psnr_fg (dB)"
    yield markdown(["method", "all", *PLACES.values()], _place_rows(table, [*names, *BASELINES]))
    yield f"## {DEFAULT} minus each other method, subject by subject"
    others = [other for other in [*names, *BASELINES] if other != DEFAULT]
    yield markdown(["compared with", *(METRICS[metric][0] for metric in COMPARED)], _difference_rows(table, others))
    if table["subject"].nunique() < MIN_TELLING_SUBJECTS:
        yield FEW_NOTE
    if name not in PICTURED:
        yield "## What each row changes"
        done = [method for method in methods[1:] if method.name in names]
        yield "\n".join(f"- **{method.name}**: {method.note} {_changes(method)}" for method in done)
    yield "## psnr_fg (dB) by subject"
    yield markdown(["subject", *names, *BASELINES], _subject_rows(table, subjects, [*names, *BASELINES]))
    yield "## What happened in the runs"
    yield _incidents(finished)
    for picture in pictures:
        yield f"![{picture.stem}: photos, and four sides of the truth and of each method]({picture.name})"


def _changes(method: Method) -> str:
    """What a row changes, as code."""
    given = f"given: {', '.join(method.given)}" if method.given else ""
    return " ".join(f"`{text}`" for text in (" ".join(method.overrides), given) if text)


def _incomplete(table: pd.DataFrame, names: Sequence[str], subjects: Sequence[str]) -> str:
    """Which rows' means are over fewer subjects than the others'."""
    measured = {name: len(statistics.subject_means(table, name, "psnr_fg")) for name in names}
    short = [f"{name} {count}" for name, count in measured.items() if count < len(subjects)]
    return f"Of {len(subjects)} subjects these rows have fewer, so only their differences compare: {', '.join(short)}."


def _has_any(table: pd.DataFrame, method: str, metrics: Sequence[str]) -> bool:
    return any(len(statistics.subject_means(table, method, metric)) for metric in metrics)


def _mean_rows(table: pd.DataFrame, names: Sequence[str], metrics: Sequence[str]) -> list[list[str]]:
    return [
        [name, *(_shown(statistics.mean(table, name, metric), METRICS[metric][1]) for metric in metrics)]
        for name in names
    ]


def _place_rows(table: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    return [
        [name, *(_shown(statistics.mean(table, name, metric), 2) for metric in ("psnr_fg", *PLACES))] for name in names
    ]


def _difference_rows(table: pd.DataFrame, others: Sequence[str]) -> list[list[str]]:
    """Bold where the interval excludes zero; with few subjects it is too narrow to say so."""
    telling = table["subject"].nunique() >= MIN_TELLING_SUBJECTS
    rows = []
    for other in others:
        row = [other]
        for metric in COMPARED:
            found = statistics.difference(table, DEFAULT, other, metric)
            shown = _shown(found, METRICS[metric][1], sign=True)
            row.append(f"**{shown}**" if telling and found.excludes_zero else shown)
        rows.append(row)
    return rows


def _subject_rows(table: pd.DataFrame, subjects: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    means = {name: statistics.subject_means(table, name, "psnr_fg") for name in names}
    return [
        [subject, *(f"{means[name][subject]:.2f}" if subject in means[name] else "" for name in names)]
        for subject in subjects
    ]


def _incidents(finished: Sequence[dict[str, Any]]) -> str:
    """Guards that tripped, and what they did: warned, or tried again with another seed."""
    lines = []
    for run in finished:
        for key, value in run["notes"].items():
            if key.endswith("guard_events") and value != "none":
                stage = key.removesuffix("/guard_events")
                lines.append(f"- {run['method']}, {run['subject']}, seed {run['seed']}, {stage}: {value}")
    return "\n".join(lines) or "No guard tripped."


def write_pictures(stem: str, runs: Sequence[Run], results: Results, folder: Path) -> list[Path]:
    """One sheet per subject: photos, truth, and every method's front, left, back and right side."""
    written = []
    for subject in dict.fromkeys(run.subject for run in runs):
        methods = [run.method.name for run in runs if run.subject == subject and run.seed == 0 and run in results]
        views = {name: results.views(name, subject) for name in methods}
        if views:
            path = folder / f"{stem}_{subject}.webp"
            to_pil(subject_sheet(subject, views)).save(path, quality=88)
            written.append(path)
    return written


def _plain(value: Estimate) -> dict[str, float | None]:
    return {
        name: None if math.isnan(number) else round(number, 5)
        for name, number in (("mean", value.mean), ("lo", value.lo), ("hi", value.hi))
    }


def _shown(value: Estimate, digits: int, sign: bool = False) -> str:
    if math.isnan(value.mean):
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(value.lo):
        return format(value.mean, form)
    return f"{value.mean:{form}} [{value.lo:{form}}, {value.hi:{form}}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _joined(finished: Sequence[dict[str, Any]], name: str) -> str:
    return ", ".join(sorted({str(run[name])[:60] for run in finished}))
