"""What is measured; each job runs in a process of its own, so that its memory and its start are its own.

`python -m benchmarks.speed.jobs NAME OUTPUT MODEL DEVICE STEPS`
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import dreambooth, encodings, kinds, parallel, sds
from benchmarks.speed.timing import time_steps
from dreambooth3d.config.base import Acceleration
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation

Job = Callable[[Path, torch.device, int, Path], dict[str, Any]]
VIEWS_OF_TWO = 2
"""Views per step of each of two GPUs."""
CURVE_STEPS = 150


def _sds(acceleration: Acceleration) -> Job:
    def job(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
        return sds.measure(model, sds.stage(acceleration=acceleration, **_small(device)), device, steps, folder)

    return job


def _kind(name: str) -> Job:
    def job(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
        return kinds.measure(model, kinds.stage(name, small=device.type != "cuda"), device, steps, folder)

    return job


def _small(device: torch.device) -> dict[str, int]:
    """On a CPU the benchmark only shows that it runs."""
    return {} if device.type == "cuda" else {"size": 16, "samples": 16}


def _dreambooth(**changes: Any) -> Job:
    def job(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
        precision = {} if device.type == "cuda" else {"mixed_precision": "no"}
        return dreambooth.measure(model, dreambooth.settings(**changes | precision), device, steps, folder)

    return job


def _scaling(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    """Step time and memory by render size and samples (compiled guidance, one view) and by views (CUDA graphs)."""
    rows = []
    sizes, samples, views = ((64, 128, 256), (128, 512, 1024), (1, 2, 4, 8, 16))
    if device.type != "cuda":
        sizes, samples, views = (8, 16), (8, 16), (1, 2)
    base_size, base_samples = sizes[0], samples[1]

    def add(guidance: ScoreDistillation, kind: str, **changes: int) -> None:
        given = {"size": base_size, "samples": base_samples} | changes
        config = sds.stage(acceleration=kind, **given)
        trainer = sds.make_trainer(guidance, config, device, folder / f"{kind}-{given}")
        for _ in range(48 if device.type == "cuda" else 1):
            trainer.train_step()
        timing = time_steps(trainer.train_step, steps, device)
        rows.append({"acceleration": kind, "views": 1} | given | timing.summary())

    compiled = sds.load_guidance(model, sds.stage(), device)
    for size in sizes:
        add(compiled, "compile", size=size)
    for count in samples:
        if count != base_samples:
            add(compiled, "compile", samples=count)
    del compiled
    for count in views:
        # Another one each time: it keeps the graphs of all numbers of views that it has seen.
        add(sds.load_guidance(model, sds.stage(acceleration="graphs"), device), "graphs", views=count)
    return {"rows": rows}


def _encodings(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    points = 262_144 if device.type == "cuda" else 1024
    return {"samples_ms": encodings.time_encodings(points=points, repeats=steps, device=str(device)), "points": points}


def _two_gpus(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    """Twice the views on two GPUs, against one of them."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return {"missing": "this machine shows one GPU"}
    small = _small(device)
    alone = sds.stage(views=VIEWS_OF_TWO, acceleration="graphs", **small)
    both = sds.stage(views=2 * VIEWS_OF_TWO, acceleration="graphs", processes=2, **small)
    same = sds.stage(views=2 * VIEWS_OF_TWO, acceleration="graphs", **small)
    curve = CURVE_STEPS if device.type == "cuda" else 3
    return {
        "one": parallel.measure(model, alone, device, steps, folder / "one", curve),
        "one_with_twice_the_views": parallel.measure(model, same, device, steps, folder / "same", curve),
        "two": parallel.measure(model, both, device, steps, folder / "two", curve),
    }


def _toybox_gpu(model: Path, device: torch.device, steps: int, folder: Path) -> dict[str, Any]:
    """The whole pipeline of configs/toybox_gpu.yaml, from the command's start to its end, nothing cached."""
    command = [
        sys.executable,
        "-m",
        "dreambooth3d.cli",
        "train",
        "configs/toybox_gpu.yaml",
        f"seed={time.time_ns() % 10**6}",
    ]
    started = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        return {"missing": f"it failed: {(finished.stderr.strip().splitlines() or ['no output'])[-1]}"}
    return {"minutes": (time.perf_counter() - started) / 60}


JOBS: dict[str, Job] = {
    "sds_plain": _sds("none"),
    "sds_graphs": _sds("graphs"),
    "sds_compile": _sds("compile"),
    "sds_compile_warm": _sds("compile"),
    "field": _kind("field"),
    "mesh": _kind("mesh"),
    "gaussians": _kind("gaussians"),
    "encodings": _encodings,
    "dreambooth_plain": _dreambooth(acceleration="none"),
    "dreambooth_graphs": _dreambooth(acceleration="graphs"),
    "dreambooth_compile": _dreambooth(acceleration="compile"),
    "dreambooth_low_memory": _dreambooth(lora_rank=4, gradient_checkpointing=True, mixed_precision="fp16"),
    "scaling": _scaling,
    "two_gpus": _two_gpus,
    "toybox_gpu": _toybox_gpu,
}


def run(name: str, output: Path, model: Path, device: str, steps: int, cache: Path) -> dict[str, Any]:
    """Run a job in a process of its own; its result, which `output` holds as well."""
    if name == "sds_compile":
        # From cold: what was compiled before does not count.
        shutil.rmtree(cache, ignore_errors=True)
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TRITON_CACHE_DIR": str(cache / "triton")}
    command = [sys.executable, "-m", "benchmarks.speed.jobs", name, str(output), str(model), device, str(steps)]
    log = output.with_suffix(".log")
    with log.open("w") as handle:
        code = subprocess.run(command, env=environment, stdout=handle, stderr=handle).returncode
    if code:
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        return {"missing": f"it failed: {lines[-1] if lines else f'exit code {code}'}"}
    return json.loads(output.read_text())


def main(name: str, output: str, model: str, device: str, steps: str) -> None:
    """Run a job in this process."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        result = JOBS[name](Path(model), torch.device(device), int(steps), Path(folder))
    Path(output).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
