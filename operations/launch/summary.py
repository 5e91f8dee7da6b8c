"""What a finished run leaves behind for a person: a folder of results, and a summary on the terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import Run
from rich.console import Console
from rich.table import Table
from zenml.models import PipelineRunResponse

from dreambooth3d.artifacts import AssetBundle, EvaluationReport
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.faults import gone_if_failed
from dreambooth3d.images import save_image
from dreambooth3d.naming import below
from operations.records.keys import CACHED, SECONDS, current, metric_key
from operations.records.publishing import PUBLISH, REPORT
from operations.records.rows import duration_of, find_row, outputs_folder, row_of_run, status_of, tracking_uri
from operations.registry.publication import PAGE

SHOWN = (
    "psnr",
    "psnr_fg",
    "ssim",
    "mask_iou",
    "clip_i",
    "clip_t",
    "r_precision",
    "janus_excess",
    "janus_rate",
    "front_recall",
    "heldout_photo_iou",
    "heldout_photo_psnr_fg",
    "heldout_photo_psnr_fg_mean",
)
PROMPTED = "evaluate_prompt"
PROMPT_SHOWN = (
    "clip_t",
    "r_precision",
    "colour_accuracy",
    "view_accuracy",
    "janus_rate",
    "janus_excess",
    "front_recall",
)
PROMPT_COLUMNS = {"asset": "", "truth": "_truth"}
CONTEXT_SHOWN = ("clip_t", "attribute_accuracy", "psnr_fg", "mask_iou")
CONTEXT_COLUMNS = {"edited": "", "before": "_source", "truth": "_truth"}
COLUMNS = {"asset": "", "coarse": "coarse/", "mean image": "baseline_mean/", "truth": "truth/"}
"""Prefixes of the evaluation's figures, as its record has them."""


def write_outputs(run: PipelineRunResponse, config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> Path:
    """Copy asset, turntable, viewer page and report to `outputs/<run>/`, those of contexts below `contexts/` there."""
    folder = outputs_folder(run.name)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with gone_if_failed(partial):
        _write_all(run, config, partial)
        if folder.exists():
            shutil.copytree(partial, folder, dirs_exist_ok=True)
            shutil.rmtree(partial)
        else:
            partial.replace(folder)
    return folder


def _write_all(run: PipelineRunResponse, config: TrainingConfig | CeilingConfig | TextTo3dConfig, folder: Path) -> None:
    report: EvaluationReport = _output(run, PROMPTED if isinstance(config, TextTo3dConfig) else "evaluate")
    _write_asset(_output(run, "export_asset"), report, folder)
    if isinstance(config, TextTo3dConfig):
        save_image(report.comparison, folder / "comparison.png")
    for index, _ in enumerate(getattr(config, "contexts", ())):
        report = _output(run, f"evaluate_context_{index}")
        _write_asset(_output(run, f"export_context_{index}"), report, folder / "contexts" / str(index))
        save_image(report.comparison, folder / "contexts" / str(index) / "comparison.png")
    if page := _page(run):
        (folder / REPORT).write_text(page, encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _write_asset(bundle: AssetBundle, report: EvaluationReport, folder: Path) -> None:
    """Copy a bundle's files and its asset's report into a folder."""
    for name in bundle.files:
        below(folder, name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(below(Path(bundle.folder), name), below(folder, name))
    metrics = {"metrics": dict(report.metrics), "definitions": dict(report.definitions)}
    (folder / "report.json").write_text(json.dumps(metrics, indent=2))
    (folder / "views.csv").write_text(report.views.to_csv(index=False))


def _page(run: PipelineRunResponse) -> str:
    """The run's report; empty where it could not be made."""
    found = run.steps[PUBLISH].outputs.get(PAGE)
    return str(found[0].load()) if found else ""


def _output(run: PipelineRunResponse, step: str) -> Any:
    """The one value that a step made."""
    (versions,) = run.steps[step].outputs.values()
    return versions[0].load()


def print_summary(run: PipelineRunResponse, folder: Path) -> None:
    """Print how the run stands, metrics, time per stage, where the results are, and how to open MLflow."""
    row = row_of_run(run.name) or find_row(run.name)  # which says what there is instead
    # The zenml command sends sys.stdout to stderr, to keep its logs apart from answers; this is an answer.
    console = Console(file=sys.__stdout__ if sys.stdout is sys.stderr else sys.stdout)
    console.print()
    console.print(f"{run.name}: {status_of(row)}", soft_wrap=True, highlight=False)
    prompted = any(name.startswith(f"{PROMPTED}/") for name in row.data.metrics)
    console.print(_prompt_table(row) if prompted else _metrics_table(row.data.metrics))
    prompts = context_prompts(row)
    if prompts:
        console.print(_contexts_table(row.data.metrics, prompts))
    console.print(_time_table(row))
    # Not wrapped, so that paths can be copied.
    for line in _places(row, folder):
        console.print(line, soft_wrap=True, highlight=False)


def context_prompts(row: Run) -> list[str]:
    """The prompts of a run's contexts, in their order."""
    params, prompts = row.data.params, []
    while (key := f"evaluate_context_{len(prompts)}.prompt") in params:
        prompts.append(params[key])
    return prompts


def _contexts_table(metrics: Mapping[str, float], prompts: Sequence[str]) -> Table:
    table = Table(title="Contexts (what was asked for, over 36 turntable views)", title_justify="left")
    table.add_column("context")
    table.add_column("metric")
    for name in CONTEXT_COLUMNS:
        table.add_column(name, justify="right")
    for index, prompt in enumerate(prompts):
        for metric in CONTEXT_SHOWN:
            keys = [f"evaluate_context_{index}/{metric}{suffix}" for suffix in CONTEXT_COLUMNS.values()]
            values = [metrics.get(key) for key in keys]
            if values[0] is not None:
                table.add_row(prompt, metric, *("" if value is None else f"{value:.3f}" for value in values))
                prompt = ""
    return table


def _prompt_table(row: Run) -> Table:
    table = Table(title=f"{row.data.params.get('read_prompt.prompt', '')} (36 turntable views)", title_justify="left")
    table.add_column("metric")
    for name in PROMPT_COLUMNS:
        table.add_column(name, justify="right")
    for metric in PROMPT_SHOWN:
        values = [row.data.metrics.get(f"{PROMPTED}/{metric}{suffix}") for suffix in PROMPT_COLUMNS.values()]
        if values[0] is not None:
            table.add_row(metric, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def _metrics_table(metrics: Mapping[str, float]) -> Table:
    table = Table(title="Metrics (36 turntable views on white; PSNR in dB)", title_justify="left")
    table.add_column("metric")
    known = {name for name, prefix in COLUMNS.items() if any(key.startswith(_figure(prefix)) for key in metrics)}
    used = {name: prefix for name, prefix in COLUMNS.items() if name in known}
    for name in used:
        table.add_column(name, justify="right")
    for metric in SHOWN:
        values = [metrics.get(_figure(prefix, metric)) for prefix in used.values()]
        if values[0] is not None:
            table.add_row(metric, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def _figure(prefix: str, metric: str = "") -> str:
    """Key of one of the evaluation's figures, or how those with a prefix begin."""
    return metric_key("evaluate", f"{prefix}{metric}")


def _time_table(row: Run) -> Table:
    metrics = current(row.data.metrics)
    table = Table(title=f"Time per stage (this run: {duration_of(row):.0f} s)", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("")
    stages = [key.removeprefix(CACHED) for key in metrics if key.startswith(CACHED)]
    for stage in stages:
        seconds = metrics.get(f"{SECONDS}{stage}", 0.0)
        table.add_row(stage, f"{seconds:.1f}", "from the cache" if metrics[f"{CACHED}{stage}"] else "")
    return table


def _places(row: Run, folder: Path) -> list[str]:
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    uri = tracking_uri()
    interface = uri if uri.startswith("http") else f"dreambooth3d ui   (or: mlflow ui --backend-store-uri {uri})"
    return [
        f"Asset       {shown}/asset.glb",
        f"Viewer      {shown}/asset.html",
        f"Turntable   {shown}/turntable.mp4",
        f"Report      {shown}/{REPORT if (folder / REPORT).is_file() else 'report.json'}",
        *(f"Context {index}   {shown}/contexts/{index}/asset.html" for index, _ in enumerate(context_prompts(row))),
        f"MLflow UI   {interface}",
    ]
