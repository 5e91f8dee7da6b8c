"""Runs side by side: one process works on one subject at a time, since the tiny model leaves most of a GPU idle."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from queue import Empty
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from benchmarks.quality.plan import Run, load_config
from benchmarks.quality.results import Results
from benchmarks.quality.sources import Source, Toybox
from benchmarks.quality.stages import Subject

FIRST_GUESS_S = 30.0
MARGIN = 1.25


@dataclass(frozen=True)
class Job:
    """How to run.

    Attributes:
        results: where finished runs go.
        work: folder for what is only needed on the way.
        device: cpu or cuda.
        deadline: no run begins that would probably end after this time (seconds of `time.time()`).
        about: plain values that each result records: commit, machine, date.
        quick: few steps and rays.
        threads: CPU threads per process.
        source: gives the photos of a subject by its name; other processes must be able to load it.
        shown: the metrics that a finished run's line tells.
        exports: whether assets are exported, and their meshes measured and kept.
    """

    results: Results
    work: Path
    device: str
    deadline: float
    about: dict[str, Any]
    quick: bool = False
    threads: int = 2
    source: Callable[[str], Source] = Toybox
    shown: tuple[str, ...] = ("psnr_fg", "mask_iou", "r_precision")
    exports: bool = False


@dataclass
class Worker:
    """Works through groups of runs; knows how long the last runs took."""

    job: Job
    longest_s: dict[str, float] = field(default_factory=dict)

    def work(self, runs: Sequence[Run]) -> Iterator[str]:
        """Run one subject's methods; yields a line for each."""
        # Two groups of one subject differ in their fine-tuning, so each has a folder for itself.
        folder = Path(tempfile.mkdtemp(dir=self.job.work))
        name, seed = runs[0].subject, runs[0].seed
        source = self.job.source(name)
        subject = Subject(name, seed, torch.device(self.job.device), folder, source, self.job.exports)
        for run in runs:
            expected = MARGIN * self.longest_s.get(run.method.name, FIRST_GUESS_S)
            if time.time() + expected > self.job.deadline:
                yield f"{run.key}: left for the next call"
                continue
            started = time.time()
            try:
                outcome = subject.run(load_config(run.method, self.job.quick), run.method.given)
            except Exception:  # one failed run must not take the others with it; it is tried again by the next call
                yield f"{run.key}: FAILED {traceback.format_exc(limit=-4)}"
                continue
            seconds = time.time() - started
            self.longest_s[run.method.name] = max(seconds, self.longest_s.get(run.method.name, 0.0))
            self.job.results.save(run, outcome, self.job.about)
            found = {name: outcome.metrics.get(name, float("nan")) for name in self.job.shown}
            shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            yield f"{run.key}: {shown} ({seconds:.0f} s)"


def run_all(runs: Sequence[Run], job: Job, workers: int) -> Iterator[str]:
    """Run what is not finished yet, one group at a time per process; yields a line for each run."""
    pending = grouped([run for run in runs if run not in job.results], workers, job.quick)
    if workers == 1:
        worker = Worker(job)
        for group in pending:
            yield from worker.work(group)
        return
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for group in pending:
        todo.put(group)
    processes = [context.Process(target=_serve, args=(job, todo, done), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    for _ in range(sum(map(len, pending))):
        yield _next_line(done, processes)


def grouped(runs: Sequence[Run], workers: int, quick: bool = False) -> list[list[Run]]:
    """Runs that share their fine-tuning together, the longest group first; divided while processes would idle.

    A group is never divided between runs that share their first field: two processes would compute it twice, and with a
    GPU's rounding that is two fields.
    """

    def tuned(run: Run) -> tuple[str, int, str]:
        config = load_config(run.method, quick)
        tuning = getattr(config, "finetune_dreambooth", None)
        # What is not fine-tuned shares nothing that would be worth waiting for.
        return run.subject, run.seed, repr((tuning, run.method.given, run.method.name if tuning is None else ""))

    def first(run: Run) -> str:
        config = load_config(run.method, quick)
        choice, recipe = getattr(config, "select_checkpoints", None), getattr(config, "recipe", None)
        return repr((getattr(config, "init_nerf", None), choice, recipe and recipe.init_from))

    groups = [list(group) for _, group in groupby(sorted(runs, key=tuned), key=tuned)]
    whole = []
    while groups and len(groups) + len(whole) < workers:
        groups.sort(key=len, reverse=True)
        longest = groups.pop(0)
        parts = [list(part) for _, part in groupby(sorted(longest, key=first), key=first)]
        if len(parts) == 1:
            whole.append(longest)
            continue
        groups += _halves(parts)
    return sorted(groups + whole, key=len, reverse=True)


def _halves(parts: Sequence[list[Run]]) -> list[list[Run]]:
    """Two groups of whole parts, of about the same length."""
    halves: list[list[Run]] = [[], []]
    for part in sorted(parts, key=len, reverse=True):
        min(halves, key=len).extend(part)
    return halves


def _next_line(done: Any, processes: list[Any]) -> str:
    """The next line of any process; an error if all of them are gone."""
    while True:
        try:
            return done.get(timeout=5.0)
        except Empty:
            if not any(process.is_alive() for process in processes):
                raise RuntimeError("all benchmark processes ended before their runs did") from None


def _serve(job: Job, todo: Any, done: Any) -> None:
    """A process: takes groups of runs until there are none left."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(job.threads)
    worker = Worker(job)
    while True:
        try:
            group = todo.get(timeout=1.0)
        except Empty:
            return
        for line in worker.work(group):
            done.put(line)
