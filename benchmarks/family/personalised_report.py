"""The report's part on personalised assets: tables by set and subject, a picture, figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from benchmarks.family.personalised import KINDS, TOYBOX, aligned, set_of
from benchmarks.family.pictures import SIZE, resized, two_columns
from benchmarks.quality import statistics
from benchmarks.quality.plan import Run
from benchmarks.quality.report import markdown
from benchmarks.quality.results import Results
from benchmarks.quality.stages import SHOWN_FRAMES
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.images import to_pil
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import SUBJECTS, subject_recipe

STEM = "family_personalised"
METRICS = {
    "psnr_fg_aligned": ("psnr_fg aligned (dB)", 2),
    "mask_iou_aligned": ("mask IoU aligned", 3),
    "refinement_seconds": ("refinement (s)", 1),
    "seconds": ("asset (s)", 0),
    "refinement_peak_gib": ("peak of the refinement (GiB)", 2),
}
"""Title and decimals of each metric."""
GLB = {
    "psnr": ("mesh against asset, PSNR (dB)", 2),
    "iou": ("mesh against asset, IoU", 4),
    "validator_errors": ("validator errors", 0),
    "validator_warnings": ("validator warnings", 0),
}
OF_RUN = {
    "psnr": "mesh/field_psnr",
    "iou": "mesh/field_iou",
    "validator_errors": "glb/errors",
    "validator_warnings": "glb/warnings",
}
"""Metrics of a run that the figures of its GLB are."""
SUMMED = ("validator_errors", "validator_warnings")
WANTED_DB = 0.5
"""By how much a kind's aligned psnr_fg may be below the best one's."""
NOT_OF_AN_ASSET = ("evaluate", "load_ground_truth", "export_asset")
NOTE = (
    "The kinds share all stages but the refinement: photos, fine-tuning, first field, pseudo views. Seconds are those "
    "of an asset without its evaluation and export, a shared stage counted in full for each; peak memory is the GPU "
    "memory that the refinement's tensors took (0 on a CPU). Aligned: after the one turn and the one scaling that fit "
    "an asset best to its truth."
)


def table_of(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run: method (the kind), set, subject, seed, the metrics and those of its GLB."""
    rows = []
    for run in results:
        metrics = run["metrics"]
        stages = {name: value for name, value in run["seconds"].items() if name not in NOT_OF_AN_ASSET}
        row = {
            "method": run["method"],
            "set": set_of(run["subject"]),
            "subject": run["subject"],
            "seed": run["seed"],
            "psnr_fg_aligned": aligned(metrics, "psnr_fg"),
            "mask_iou_aligned": aligned(metrics, "mask_iou"),
            "refinement_seconds": run["seconds"].get("refine_nerf"),
            "seconds": sum(stages.values()),
            "refinement_peak_gib": run["peak_mib"].get("refine_nerf", math.nan) / 1024,
        }
        rows.append(row | {name: metrics.get(key) for name, key in OF_RUN.items()})
    table = pd.DataFrame(rows)
    numbers = [*METRICS, *GLB]
    table[numbers] = table[numbers].astype(float)
    return table


def figures(table: pd.DataFrame) -> dict[str, Any]:
    """The sections `personalised` and `glb`: means over the toybox' subjects, where there are any, and over each set.

    The GLB's figures at the top are of fields; of the validator's issues the sum over all files counts.
    """
    sets = list(dict.fromkeys(table["set"]))
    headline = TOYBOX if TOYBOX in sets else sets[0]
    personalised: dict[str, Any] = {}
    glb: dict[str, Any] = {}
    for kind in _kinds(table):
        by_set = {name: _means(table[table["set"] == name], kind, METRICS) for name in sets}
        personalised[kind] = by_set[headline] | {"sets": by_set}
        glb[kind] = _glb(table, kind)
    return {"personalised": personalised, "glb": {**glb.get("field", {}), "kinds": glb}}


def _kinds(table: pd.DataFrame) -> list[str]:
    return [kind for kind in KINDS if kind in set(table["method"])]


def _means(table: pd.DataFrame, kind: str, metrics: Iterable[str]) -> dict[str, float | int]:
    means = {name: statistics.mean(table, kind, name).mean for name in metrics}
    known: dict[str, float | int] = {name: round(value, 5) for name, value in means.items() if not math.isnan(value)}
    return known | {"subjects": int(table[table["method"] == kind]["subject"].nunique())}


def _glb(table: pd.DataFrame, kind: str) -> dict[str, float | int]:
    """Means of a kind's meshes over all subjects; of the validator's issues the sum."""
    found = _means(table, kind, [name for name in GLB if name not in SUMMED])
    for name in SUMMED:
        known = table[table["method"] == kind][name].dropna()
        if len(known):
            found[name] = int(known.sum())
    return found


def sections(finished: Sequence[Mapping[str, Any]], pictures: Sequence[Path]) -> Iterable[str]:
    """The parts of the Markdown file."""
    table = table_of(finished)
    kinds = _kinds(table)
    yield "## Personalised: one subject as a field, a mesh and Gaussians"
    about = ", ".join(_joined(finished, name) for name in ("machine", "side_by_side"))
    yield (
        f"Printed by `python -m benchmarks.family --personalised`; {len(finished)} runs, {about}, commit "
        f"{_joined(finished, 'commit')}, {_joined(finished, 'date')}. The default recipe "
        "(`configs/bench/dreambooth3d.yaml`), refined as each kind; means over subjects, in brackets the 95 % interval "
        "of the bootstrap over them."
    )
    for name, rows in table.groupby("set", sort=False):
        yield f"### {str(name).capitalize()} (subjects: {rows['subject'].nunique()})"
        yield markdown(
            ["kind", *(title for title, _ in METRICS.values()), "below the best (dB)"],
            [[kind, *(_shown(rows, kind, metric) for metric in METRICS), _below(rows, kinds, kind)] for kind in kinds],
        )
    yield "\n".join(f"- **{kind}**: {KINDS[kind].note}." for kind in kinds)
    yield NOTE
    yield "psnr_fg aligned (dB) by subject:"
    means = {kind: statistics.subject_means(table, kind, "psnr_fg_aligned") for kind in kinds}
    yield markdown(
        ["subject", *kinds],
        [
            [subject, *(f"{means[kind][subject]:.2f}" if subject in means[kind] else "" for kind in kinds)]
            for subject in dict.fromkeys(table["subject"])
        ],
    )
    yield "### Their textured GLB"
    rows = {kind: _glb(table, kind) for kind in kinds}
    yield markdown(
        ["kind", *(title for title, _ in GLB.values())],
        [[kind, *(_plain(rows[kind].get(name), digits) for name, (_, digits) in GLB.items())] for kind in kinds],
    )
    if wrong := _errors(finished):
        yield "\n".join(wrong)
    for picture in pictures:
        shown = "front, left, back and right side of each asset, and of the truth in the toybox"
        yield f"![{picture.stem}: {shown}]({picture.name})"


def _errors(finished: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which errors the validator found in which files."""
    prefix = "glb/errors/"
    return [
        f"- {run['method']}, {run['subject']}, seed {run['seed']}: {name.removeprefix(prefix)}, {count:.0f} times"
        for run in finished
        for name, count in run["metrics"].items()
        if name.startswith(prefix)
    ]


def _shown(table: pd.DataFrame, kind: str, metric: str) -> str:
    value, digits = statistics.mean(table, kind, metric), METRICS[metric][1]
    if math.isnan(value.mean):
        return ""
    if math.isnan(value.lo):
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} [{value.lo:.{digits}f}, {value.hi:.{digits}f}]"


def _below(table: pd.DataFrame, kinds: Sequence[str], kind: str) -> str:
    """By how much a kind is below the best, and whether that is little enough."""
    means = {name: statistics.mean(table, name, "psnr_fg_aligned").mean for name in kinds}
    known = [mean for mean in means.values() if not math.isnan(mean)]
    if not known or math.isnan(means[kind]):
        return ""
    below = max(known) - means[kind]
    return f"{below:.2f}, {'met' if below <= WANTED_DB else '**not met**'}"


def _plain(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def write_pictures(runs: Sequence[Run], results: Results, folder: Path) -> list[Path]:
    """One sheet per set: of each subject the truth, where it is the toybox', and each kind from four sides."""
    written = []
    subjects = dict.fromkeys(run.subject for run in runs)
    for name in dict.fromkeys(set_of(subject) for subject in subjects):
        rows: dict[str, Tensor] = {}
        for subject in (each for each in subjects if set_of(each) == name):
            if subject in SUBJECTS:
                cameras = turntable_cameras()[list(SHOWN_FRAMES)]
                rows[f"{subject}: truth"] = render_views(subject_recipe(subject), cameras, size=SIZE).image.float()
            for kind in KINDS:
                if (views := results.views(kind, subject)) is not None:
                    rows[f"{subject}: {kind}"] = resized(views)
        if rows:
            path = folder / f"{STEM}_{name}.webp"
            to_pil(two_columns(rows)).save(path, quality=88)
            written.append(path)
    return written


def _joined(finished: Sequence[Mapping[str, Any]], name: str) -> str:
    return ", ".join(sorted({str(run[name])[:60] for run in finished}))
