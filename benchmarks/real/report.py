"""The report of real subjects: tables in Markdown, figures in JSON, one picture per subject and kind of photos."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from benchmarks.photo_cameras import NEAR_DEG
from benchmarks.quality.plan import Run
from benchmarks.quality.report import markdown
from benchmarks.quality.results import Results
from benchmarks.quality.stages import SHOWN_FRAMES
from benchmarks.real.layout import MaskedPhotos, PhotoSet
from benchmarks.real.photos import Measured
from benchmarks.real.plan import MEAN_IMAGE, METHODS
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.images import from_pil, to_pil

SCORES = {
    "psnr_fg_aligned": ("psnr_fg aligned (dB)", 2),
    "mask_iou_aligned": ("mask IoU aligned", 3),
    "psnr_fg": ("psnr_fg (dB)", 2),
    "mask_iou": ("mask IoU", 3),
    "psnr_aligned": ("PSNR aligned (dB)", 2),
    "psnr": ("PSNR (dB)", 2),
    "heading_deg": ("heading off (degrees)", 0),
}
"""Title and decimals of each score."""
HEADLINE = "casual"
"""The kind of photos whose figures stand for masks and cameras."""
GOOD_IOU = 0.85
SIZE = 96


@dataclass(frozen=True)
class Finished:
    """What there is to report on.

    Attributes:
        sets: the photo sets with their truth.
        others: photos of which only masks are known.
        runs: all that are asked for.
        results: those of them that are finished.
        measured: what was made of the photos.
    """

    sets: Sequence[PhotoSet]
    others: Sequence[MaskedPhotos]
    runs: Sequence[Run]
    results: Results
    measured: Measured


def write(finished: Finished, folder: Path) -> None:
    """Write `real.md`, `real.json` and `real_SUBJECT.webp` of what is finished."""
    rows = finished.results.load(list(finished.runs))
    table = table_of(rows, finished.sets)
    masks, cameras = mask_table(finished), camera_table(finished)
    if table.empty and masks.empty:
        return
    folder.mkdir(parents=True, exist_ok=True)
    pictures = write_pictures(finished, folder)
    text = "\n\n".join([*_head(finished, rows), *_sections(table, masks, cameras, pictures)]) + "\n"
    (folder / "real.md").write_text(text)
    (folder / "real.json").write_text(json.dumps(figures(table, masks, cameras, rows), indent=1) + "\n")


def table_of(rows: Iterable[Mapping[str, Any]], sets: Sequence[PhotoSet]) -> pd.DataFrame:
    """One row per run and one per set for the mean image: kind, subject, method, seed and the scores."""
    known = {each.key: each for each in sets}
    found = []
    baselines = {}
    for row in rows:
        about = {"kind": known[row["subject"]].kind, "subject": known[row["subject"]].name}
        scores = {name: row["metrics"][name] for name in SCORES}
        found.append(about | {"method": row["method"], "seed": row["seed"]} | scores)
        scores = {name: row["metrics"][f"{MEAN_IMAGE}/{name}"] for name in SCORES}
        baselines[row["subject"]] = about | {"method": MEAN_IMAGE, "seed": 0} | scores
    return pd.DataFrame([*found, *baselines.values()])


def means(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Means over subjects, each of them a mean over seeds: methods as rows, scores as columns."""
    if table.empty or not (table["kind"] == kind).any():
        return pd.DataFrame()
    chosen = table[table["kind"] == kind]
    by_subject = chosen.groupby(["method", "subject"])[list(SCORES)].mean()
    order = [name for name in (*(method.name for method in METHODS), MEAN_IMAGE) if name in set(chosen["method"])]
    return by_subject.groupby("method").mean().loc[order]


def mask_table(finished: Finished) -> pd.DataFrame:
    """One row per photo and source of masks: kind, set, file, row, iou, trusted."""
    rows = []
    for each in (*finished.sets, *finished.others):
        found = finished.measured.load(each.key)
        kind = each.kind if isinstance(each, PhotoSet) else each.key
        for source, photos in (found or {"masks": {}})["masks"].items():
            rows += [{"kind": kind, "set": each.key, "masks": source} | photo for photo in photos]
    return pd.DataFrame(rows)


def camera_table(finished: Finished) -> pd.DataFrame:
    """One row per photo set and kind of masks: kind, subject, masks, located, azimuth_off_deg, turn_deg."""
    rows = []
    for each in finished.sets:
        found = finished.measured.load(each.key)
        for masks, row in (found or {"cameras": {}})["cameras"].items():
            rows.append({"kind": each.kind, "subject": each.name, "masks": masks, "turn_deg": math.nan} | row)
    return pd.DataFrame(rows)


def mask_figures(rows: pd.DataFrame) -> dict[str, float | None]:
    """Of photos: mean IoU, share above 0.85, the worst, and the worst of those that are trusted."""
    trusted = rows[rows["trusted"]]
    return {
        "photos": len(rows),
        "iou": rows["iou"].mean(),
        "above_0.85": (rows["iou"] > GOOD_IOU).mean(),
        "worst": rows["iou"].min(),
        "trusted": len(trusted),
        "worst_trusted": trusted["iou"].min() if len(trusted) else None,
    }


def camera_figures(rows: pd.DataFrame) -> dict[str, float | None]:
    """Of photo sets: which share of photos was located, how far off azimuths are, and the median common turn."""
    errors = torch.tensor([error for row in rows["azimuth_off_deg"] for error in row])
    turns = rows["turn_deg"].dropna().abs()
    return {
        "sets": len(rows),
        "located": rows["located"].mean(),
        "median_deg": errors.median().item() if len(errors) else None,
        "within_20": (errors <= NEAR_DEG).float().mean().item() if len(errors) else None,
        "heading_deg": turns.median() if len(turns) else None,
    }


def figures(
    table: pd.DataFrame, masks: pd.DataFrame, cameras: pd.DataFrame, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All means: by kind and method, of masks, of cameras, and by subject."""
    kinds = [] if table.empty else list(dict.fromkeys(table["kind"]))
    found: dict[str, Any] = {kind: _plain(means(table, kind).to_dict(orient="index")) for kind in kinds}
    found["masks"] = {
        source: _by_kind(masks[masks["masks"] == source], mask_figures)
        for source in ([] if masks.empty else dict.fromkeys(masks["masks"]))
    }
    found["cameras"] = {
        source: _by_kind(cameras[cameras["masks"] == source], camera_figures)
        for source in ([] if cameras.empty else dict.fromkeys(cameras["masks"]))
    }
    found["subjects"] = {
        kind: {
            subject: _plain(chosen.groupby("method")[list(SCORES)].mean().to_dict(orient="index"))
            for subject, chosen in table[table["kind"] == kind].groupby("subject")
        }
        for kind in kinds
    }
    return found | {"runs": len(rows)} | {name: _joined(rows, name) for name in ("machine", "commit", "date")}


def _by_kind(rows: pd.DataFrame, measure: Any) -> dict[str, Any]:
    """The figures of the casual photos, or of all where there are none, and those of each kind below its name."""
    headline = rows[rows["kind"] == HEADLINE]
    by_kind = {kind: _plain(measure(rows[rows["kind"] == kind])) for kind in dict.fromkeys(rows["kind"])}
    return _plain(measure(headline if len(headline) else rows)) | by_kind


def _head(finished: Finished, rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """What the tables show."""
    yield "# Things that nobody here modelled"
    command = f"make benchmark-real REAL=FOLDER{' QUICK=1' if finished.results.quick else ''}"
    where = f", {_joined(rows, 'machine')}, commit {_joined(rows, 'commit')}, {_joined(rows, 'date')}" if rows else ""
    yield (
        f"Printed by `{command}`; {len(rows)} of {len(finished.runs)} runs{where}. Photos of meshes by other people, "
        "with a known truth. Means over subjects, each a mean over seeds. Aligned: after the one turn and the one "
        "scaling of the images that fit the asset best to the truth, since photos tell neither."
    )
    yield "\n".join(f"- `{method.name}`: {method.note}." for method in METHODS) + (
        f"\n- `{MEAN_IMAGE}`: the mean of the 36 true views in place of each."
    )


def _sections(
    table: pd.DataFrame, masks: pd.DataFrame, cameras: pd.DataFrame, pictures: Sequence[Path]
) -> Iterable[str]:
    """The tables and pictures."""
    for kind in [] if table.empty else dict.fromkeys(table["kind"]):
        yield f"## {kind.capitalize()} photos"
        found = means(table, kind)
        lines = [[method, *(f"{row[key]:.{SCORES[key][1]}f}" for key in SCORES)] for method, row in found.iterrows()]
        yield markdown(["method", *(title for title, _ in SCORES.values())], lines)
        yield f"By subject, psnr_fg aligned (dB), {kind}:"
        yield _subject_table(table[table["kind"] == kind], list(found.index))
    if not masks.empty:
        yield "## Masks"
        yield _mask_lines(masks)
    if not cameras.empty:
        yield "## Cameras"
        yield _camera_lines(cameras)
        yield (
            "Azimuths are off after the one turn by which all of a set's are wrong together, which is told apart: the "
            "field's own heading corrects it later. A row of all photos has the median turn of its sets."
        )
    for picture in pictures:
        yield f"![{picture.stem}: photos, and four sides of the truth and of each method]({picture.name})"


def _subject_table(table: pd.DataFrame, methods: Sequence[str]) -> str:
    found = table.pivot_table(index="subject", columns="method", values="psnr_fg_aligned")[list(methods)]
    lines = [[subject, *("" if math.isnan(x) else f"{x:.2f}" for x in row)] for subject, row in found.iterrows()]
    return markdown(["subject", *methods], lines)


def _mask_lines(masks: pd.DataFrame) -> str:
    lines = []
    for (kind, source), rows in masks.groupby(["kind", "masks"], sort=False):
        found = mask_figures(rows)
        lines.append(
            [
                kind,
                source,
                f"{found['iou']:.3f}",
                f"{(rows['iou'] > GOOD_IOU).sum()} of {len(rows)}",
                f"{found['worst']:.2f}",
                f"{found['trusted']}",
                _or_nothing(found["worst_trusted"], ".2f"),
            ]
        )
    return markdown(["photos", "masks", "mean IoU", "above 0.85", "worst", "trusted", "worst trusted"], lines)


def _camera_lines(cameras: pd.DataFrame) -> str:
    lines = []
    for (kind, source), rows in cameras.groupby(["kind", "masks"], sort=False):
        parts = [*((subject, part) for subject, part in rows.groupby("subject")), ("**all**", rows)]
        for subject, part in parts:
            found = camera_figures(part)
            lines.append(
                [
                    kind,
                    source,
                    str(subject),
                    f"{found['located']:.0%}",
                    _or_nothing(found["median_deg"], ".1f"),
                    _or_nothing(found["within_20"], ".0%"),
                    _or_nothing(found["heading_deg"], ".0f"),
                ]
            )
    header = ["photos", "masks", "subject", "located", "azimuth off, median", "within 20", "common turn off"]
    return markdown(header, lines)


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def write_pictures(finished: Finished, folder: Path) -> list[Path]:
    """One sheet per subject: for each kind its photos and every method's four sides, below the truth."""
    written = []
    for name in dict.fromkeys(each.name for each in finished.sets):
        rows: dict[str, Tensor] = {}
        for each in (each for each in finished.sets if each.name == name):
            views = {method.name: finished.results.views(method.name, each.key) for method in METHODS}
            if all(found is None for found in views.values()):
                continue
            rows.setdefault("truth", each.truth.images[list(SHOWN_FRAMES)])
            rows[f"{each.kind}: photos"] = _shown_photos(each)
            rows |= {f"{each.kind}: {method}": found for method, found in views.items() if found is not None}
        if rows:
            path = folder / f"real_{name}.webp"
            columns = max(len(images) for images in rows.values())
            to_pil(labelled_rows(rows, columns=columns, cell=SIZE)).save(path, quality=88)
            written.append(path)
    return written


def _shown_photos(photos: PhotoSet) -> Tensor:
    images = []
    for path in photos.photos:
        with Image.open(path) as image:
            images.append(from_pil(image.convert("RGB").resize((SIZE, SIZE))))
    return torch.stack(images)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rounded figures, None for what is not known."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _plain(value)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        return value if isinstance(value, int) else round(float(value), 5)

    return {str(key): rounded(value) for key, value in values.items()}


def _joined(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return ", ".join(sorted({str(row[name])[:60] for row in rows}))
