"""Many small runs: what leaks, what grows, and whether both stores agree afterwards.

In one process, fresh runs and the same again from the cache alternate; then as many commands as `--together` start at
the same moment. All state is in a temporary folder. The runs are real ones of `pipelines.training` with the bundled
models, of few steps each.

Usage: python -m benchmarks.load [--runs 100] [--together 8] [--json docs/resilience.json]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.resilience_report import merge
from benchmarks.simultaneous import activated
from dreambooth3d.places import repository

TINY: dict[str, Any] = {
    "device": "cpu",
    "photos": {"dir": "", "class_noun": "dog"},
    "recipe": {"init_from": "full", "pseudo_views": False, "multiview": False, "refine_with": "none"},
    "finetune_dreambooth": {
        "steps": 2, "checkpoint_every": 2, "batch_size": 1, "class_images": 2, "class_inference_steps": 2,
        "sample_inference_steps": 2, "warmup_steps": 1,
    },
    "select_checkpoints": {"samples_per_view": 1, "inference_steps": 2},
    "init_nerf": {
        "steps": 2, "views_per_step": 1, "check_every": 100, "field": {"encoding": "dense", "volume_resolution": 12},
        "render": {"sampler": "dense", "size": 12, "samples_per_ray": 12, "occupancy_resolution": 8},
        "photos": {"weight": 0.0},
    },
    "evaluate": {"size": 24, "samples_per_ray": 16},
    "export_asset": {
        "mesh_resolution": 24, "mesh_threshold": 1.0, "frame_size": 32, "frame_rays": 16, "samples_per_ray": 16,
        "max_triangles": 500, "texture_size": 64, "measured_size": 16,
    },
}  # fmt: skip
COUNTED = ("handles", "threads", "processes", "temporary_files", "work_files")
GROWTH_ALLOWED = 0.05
_SHARE = 0.2
"""Of the runs: the first ones warm up, the next ones and the last ones are compared."""


def write_config(path: Path, photos: Path, seed: int) -> Path:
    """The settings of one fresh run, in a file."""
    values = {**TINY, "seed": seed, "photos": {**TINY["photos"], "dir": str(photos)}}
    path.write_text(yaml.safe_dump({"parameters": values}))
    return path


def run_in_a_row(folder: Path, photos: Path, runs: int) -> None:
    """In this process: every second run repeats the one before it; one line of JSON after each."""
    from pipelines.training import dreambooth3d

    for index in range(runs):
        config = write_config(folder / "load.yaml", photos, index // 2)
        before = time.perf_counter()
        dreambooth3d.with_options(config_path=str(config))()
        seconds = time.perf_counter() - before
        print(json.dumps({"seconds": seconds, "cached": bool(index % 2), **state_of_process(folder)}), flush=True)


def state_of_process(folder: Path) -> dict[str, float]:
    """What this process holds, and what has come to lie on the disk."""
    gc.collect()
    process = psutil.Process()
    work = Path(os.environ["DREAMBOOTH3D_WORK"])
    return {
        "memory_mib": process.memory_info().rss / 2**20,
        "handles": process.num_fds(),
        "threads": process.num_threads(),
        "processes": len(process.children(recursive=True)),
        "temporary_files": _files(Path(tempfile.gettempdir())),
        # Class images are a cache of the base model's, which runs of other subjects share.
        "work_files": sum("class_images" not in path.parts for path in _walk(work)),
        "stores_mib": sum(path.stat().st_size for path in _walk(folder / ".zenconfig")) / 2**20,
    }


def _files(folder: Path) -> int:
    return sum(1 for _ in _walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def disagreements(expected: int) -> list[str]:
    """What ZenML's database, MLflow's and the artifact store do not agree on after this many runs."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    from operations.records.rows import list_rows, row_name

    client, problems = Client(), []
    runs = depaginate(client.list_pipeline_runs)
    rows = list_rows(limit=10 * expected)
    stands = {run.name: str(run.status) for run in runs}
    if len(stands) != expected or set(stands.values()) != {"completed"}:
        problems.append(f"ZenML: {len(stands)} runs of {expected}, {sorted(set(stands.values()))}")
    names = sorted(map(row_name, rows))
    if names != sorted(stands):
        problems.append(f"MLflow: {len(names)} rows, {len(set(names) ^ set(stands))} without a run or missing")
    unfinished = [
        row_name(row) for row in rows if (row.info.status, row.data.tags.get("status")) != ("FINISHED", "completed")
    ]
    if unfinished:
        problems.append(f"MLflow: {len(unfinished)} rows are not finished, {unfinished[0]} for example")
    uris = [Path(version.uri) for version in depaginate(client.list_artifact_versions)]
    gone = [uri for uri in uris if not (uri.is_dir() and any(uri.iterdir()))]
    if gone:
        problems.append(f"artifact store: {len(gone)} of {len(uris)} artifacts are gone, {gone[0]} for example")
    # An artifact's folder is <store>/<pipeline or step>/<output>/<run>/<id>: what lies beside its like is nobody's.
    known = set(uris)
    orphans = [found for parent in {uri.parent for uri in uris} for found in parent.iterdir() if found not in known]
    if orphans:
        problems.append(f"artifact store: {len(orphans)} folders belong to no artifact, {orphans[0]} for example")
    return problems


def summary_of(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Growth between the runs after the warming up and the last ones; what is counted must not grow at all."""
    share = max(2, 2 * round(len(lines) * _SHARE / 2))
    early, late = lines[share : 2 * share] or lines[:share], lines[-share:]

    def median(part: Sequence[dict[str, Any]], key: str) -> float:
        return statistics.median(line[key] for line in part)

    def seconds(part: Sequence[dict[str, Any]], cached: bool) -> float:
        return statistics.median(line["seconds"] for line in part if line["cached"] == cached)

    leaked = {key: max(0, max(line[key] for line in late) - max(line[key] for line in early)) for key in COUNTED}
    stored = [after["stores_mib"] - before["stores_mib"] for before, after in itertools.pairwise(lines)]
    fresh, cached = stored[1::2], stored[::2]
    return {
        "runs": len(lines),
        "memory_mib": round(median(late, "memory_mib"), 1),
        "memory_growth": round(median(late, "memory_mib") / median(early, "memory_mib") - 1, 4),
        **{f"leaked_{key}": value for key, value in leaked.items()},
        "seconds_fresh": round(seconds(late, False), 2),
        "seconds_fresh_before": round(seconds(early, False), 2),
        "seconds_cached": round(seconds(late, True), 2),
        "seconds_cached_before": round(seconds(early, True), 2),
        "stored_mib_per_fresh_run": round(statistics.median(fresh), 3) if fresh else None,
        "stored_mib_per_cached_run": round(statistics.median(cached), 3),
    }


def together(folder: Path, photos: Path, count: int, environment: dict[str, str]) -> list[str]:
    """Start this many commands at the same moment, each with a configuration of its own; a line for each that fails."""
    command = [sys.executable, str(Path(sys.executable).with_name("dreambooth3d")), "train"]
    configs = [write_config(folder / f"together{index}.yaml", photos, 1000 + index) for index in range(count)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen([*command, str(config)], cwd=repository(), env=environment, **options) for config in configs
    ]
    outputs = [process.communicate()[0] for process in started]
    return [
        f"a run of {count} at once: {(output.strip().splitlines() or ['no output'])[-1]}"
        for process, output in zip(started, outputs, strict=True)
        if process.returncode != 0
    ]


def main() -> None:
    """Print the figures, then each problem; exit code 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--json", type=Path, help="a report to put the figures into, under `load`")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--check", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    photos = repository() / "data" / "corgi"
    if arguments.check is not None:
        print(json.dumps(disagreements(arguments.check)))
        return
    if arguments.child is not None:
        run_in_a_row(arguments.child, photos, arguments.runs)
        return
    if not photos.is_dir():
        sys.exit(f"{photos}: there are no photos. Run `make setup` first.")
    with tempfile.TemporaryDirectory() as temporary:
        found, problems = measure(Path(temporary), photos, arguments.runs, arguments.together)
    print(json.dumps(found, indent=2))
    for problem in problems:
        print(problem)
    if arguments.json is not None:
        merge(arguments.json, "load", found)
    sys.exit(1 if problems else 0)


def measure(folder: Path, photos: Path, runs: int, at_once: int) -> tuple[dict[str, Any], list[str]]:
    """The figures of all runs, and what is wrong with them."""
    state, temporary = folder / "state", folder / "temporary"
    temporary.mkdir()
    environment = activated(state) | {
        "TMPDIR": str(temporary), "DREAMBOOTH3D_WORK": str(state / "work"), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    this = [sys.executable, "-m", "benchmarks.load"]
    dreambooth3d = [sys.executable, str(Path(sys.executable).with_name("dreambooth3d"))]
    subprocess.run([*dreambooth3d, "setup"], cwd=repository(), env=environment, check=True, stdout=subprocess.DEVNULL)
    # A product of its own, of the same code and models.
    for name in ("dreambooth3d", "materializers", "operations", "pipelines", "steps", "models"):
        (state / name).symlink_to(repository() / name)
    log = folder / "runs.log"
    command = [*this, "--child", str(state), "--runs", str(runs)]
    lines: list[dict[str, Any]] = []
    with log.open("w") as errors, subprocess.Popen(
        command, cwd=repository(), env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as child:  # fmt: skip
        for line in child.stdout or ():
            if line.startswith('{"seconds"'):
                lines.append(json.loads(line))
                if len(lines) % 10 == 0:
                    print(f"{len(lines)} runs: {lines[-1]}", file=sys.stderr, flush=True)
    if child.returncode != 0 or len(lines) != runs:
        sys.exit(f"Run {len(lines) + 1} failed: {(log.read_text().strip().splitlines() or ['no output'])[-1]}")
    problems = together(folder, photos, at_once, environment)
    check = [*this, "--check", str(runs + at_once)]
    checked = subprocess.run(check, cwd=repository(), env=environment, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        sys.exit(f"The stores could not be compared: {checked.stderr.strip().splitlines()[-1]}")
    disagree = json.loads(checked.stdout.strip().splitlines()[-1])
    found = summary_of(lines) | {
        "at_once": at_once,
        "at_once_failed": len(problems),
        "disagreements": len(disagree),
        "temporary_files_left": _files(temporary),
    }
    if found["memory_growth"] > GROWTH_ALLOWED:
        problems.append(f"memory grew by {found['memory_growth']:.1%}, {GROWTH_ALLOWED:.0%} allowed")
    problems += [f"{key} grew by {found[f'leaked_{key}']}" for key in COUNTED if found[f"leaked_{key}"]]
    shutil.rmtree(temporary)
    return found, problems + disagree


if __name__ == "__main__":
    main()
