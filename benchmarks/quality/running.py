"""The options of commands that run a benchmark's runs, and what they do with them."""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.quality.plan import Run
from benchmarks.quality.pool import Job, run_all
from benchmarks.quality.results import Results
from benchmarks.quality.sharing import shared_gpu
from dreambooth3d.runtime import pick_device
from operations.launch.identity import git_commit

DEFAULT_WORKERS = {"cpu": 1, "cuda": 16}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where, how many side by side, and until when; a parser that takes them also has `--quick`."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--workers", type=int, help="processes; default 16 on a GPU, 1 on a CPU")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run that would end later")
    parser.add_argument("--threads", type=int, help="CPU threads per process; default all cores together")
    parser.add_argument("--commit", help="what results record; default that of the checkout")


def run_pending(arguments: argparse.Namespace, runs: Sequence[Run], results: Results, **job: Any) -> bool:
    """Run what is left; whether a run failed.

    Args:
        arguments: with those of `add_options`.
        runs: all of them.
        results: where finished ones are.
        job: further settings of `Job`.
    """
    device = pick_device("cpu" if arguments.quick and arguments.device == "auto" else arguments.device).type
    workers = arguments.workers or DEFAULT_WORKERS[device]
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // workers)
    failed = False
    with shared_gpu(device == "cuda" and workers > 1) as shared, tempfile.TemporaryDirectory() as work:
        about = {
            "commit": arguments.commit or git_commit(),
            "machine": machine(device),
            "side_by_side": f"{workers} processes{', sharing the GPU by MPS' if shared else ''}",
            "date": datetime.date.today().isoformat(),
        }
        deadline = time.time() + 60 * arguments.minutes
        everything = Job(results, Path(work), device, deadline, about, arguments.quick, threads, **job)
        for line in run_all(runs, everything, workers):
            failed = failed or ": FAILED" in line
            print(line, flush=True)
    return failed
