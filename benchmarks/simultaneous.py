"""Commands that start at the same moment, in pairs, and how many of them fail; or the same run, several times at once.

Every pair is one of `PAIRS`, in turn, in a folder of state of its own, so that the user's is not touched. `--clients`
starts two processes that have imported ZenML already, and look up the stack at the same moment: less time between
starts, and closer in time. `--setup` starts two `dreambooth3d setup` at once, each time on an empty folder.

`--runs 2 4 8` starts so many identical runs of a product with tiny models, one of the numbers after the other, each of
them fresh, when each stage is computed by one of them for all, and then warm, when ZenML's cache has all of it; so
often that there are `--rounds` such starts. Each run is a fork of a process that has imported the libraries, so that
all begin within milliseconds. A round fails if a run does, if their figures differ, or if a work folder is left.

Usage: python -m benchmarks.simultaneous [--pairs 200] [--clients | --setup]
    [--runs 2 4 8 --rounds 50 --json docs/resilience.json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.resilience_report import merge
from dreambooth3d.cli.setup import STACK
from dreambooth3d.environment import ACTIVE, HOME, SETTINGS
from dreambooth3d.places import repository
from tests.product import FRONT_DOOR, SHORTEST, Product, make_product
from tests.timing import untimed
from tests.warm import WarmProcess

SETUP = ("dreambooth3d", "setup")
KINDS = ("fresh", "warm")
PAIRS = (
    (("dreambooth3d", "schedules", "list"), ("zenml", "stack", "list")),
    (("zenml", "stack", "list"), ("zenml", "project", "list")),
    (("dreambooth3d", "schedules", "list"), ("dreambooth3d", "schedules", "list")),
    (("dreambooth3d", "runs", "list"), ("zenml", "stack", "list")),
)


def activated(root: Path) -> dict[str, str]:
    """The environment of a shell whose state is in `root`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML_", "MLFLOW_"))}
    own = {name: value.format(root=root) for name, value in SETTINGS.items()}
    # The user's own `activate` script stays as it is.
    script = root / "bin" / "activate"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.touch()
    return inherited | own | {ACTIVE: str(root), HOME: str(root), "DREAMBOOTH3D_ACTIVATE": str(script)}


def at_once(commands: tuple[tuple[str, ...], ...], root: Path) -> list[str]:
    """Start all commands, wait for all, and return one line for each that failed."""
    scripts = Path(sys.executable).parent
    started = [
        subprocess.Popen(
            [sys.executable, str(scripts / name), *arguments], cwd=repository(), env=activated(root),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name, *arguments in commands
    ]  # fmt: skip
    failures = []
    for command, process in zip(commands, started, strict=True):
        output, _ = process.communicate()
        if process.returncode != 0:
            failures.append(f"{' '.join(command)}: {output.strip().splitlines()[-1:]}")
    return failures


def look_up(barrier: Barrier) -> None:
    """What each command begins with, at the moment when the other begins as well."""
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    barrier.wait()
    sys.exit(Client().active_stack_model.name != STACK)


def clients_at_once() -> list[str]:
    """Two processes of this one's environment; one line for each that failed."""
    import zenml.client  # noqa: F401  (so that the two need not)

    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    started = [context.Process(target=look_up, args=(barrier,)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [f"a client: exit code {process.exitcode}" for process in started if process.exitcode]


def identical_runs(product: Product, config: str, processes: Sequence[WarmProcess]) -> tuple[int, list[str]]:
    """The same run once per process, all at once; how often one waited for another, and one line for each problem."""

    def train(process: WarmProcess) -> subprocess.CompletedProcess[str]:
        return process.run((*FRONT_DOOR, config), product.root, product.environment)

    with ThreadPoolExecutor(len(processes)) as pool:
        ended = list(pool.map(train, processes))
    texts = [run.stdout + run.stderr for run in ended]
    problems = [
        f"run {index}: exit code {run.returncode}: {text.strip().splitlines()[-1:]}"
        for index, (run, text) in enumerate(zip(ended, texts, strict=True))
        if run.returncode
    ]
    figures = newest_figures(product, len(processes))
    known = {key for row in figures for key in row}
    differ = sorted(key for key in known if len({str(row.get(key)) for row in figures}) > 1)
    problems += [f"{len(differ)} figures differ, such as {differ[0]}"] if differ else []
    problems += [f"{len(figures)} rows"] * (len(figures) != len(processes))
    left = [path.name for path in (product.root / ".dreambooth3d" / "work").iterdir() if path.name != "class_images"]
    waits = sum(text.count("computes the same at present") for text in texts)
    return waits, problems + [f"{name} is left" for name in left]


def newest_figures(product: Product, count: int) -> list[dict[str, float]]:
    """The metrics of the newest rows, but for what was measured with a clock."""
    from mlflow import MlflowClient

    database = next((product.root / ".zenconfig").rglob("mlflow.db"))
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("dreambooth3d")
    assert experiment is not None
    rows = client.search_runs([experiment.experiment_id], max_results=count, order_by=["attributes.start_time DESC"])
    return [untimed(row.data.metrics) for row in rows]


def rounds_of_runs(folder: Path, counts: Sequence[int], rounds: int, report: Path | None) -> int:
    """Print a line for each start of identical runs, and note it in the report; return how many failed."""
    product = make_product(folder)
    if (result := product.dreambooth3d("setup")).returncode:
        sys.exit(result.stderr)
    processes = [WarmProcess(product.environment) for _ in range(max(counts))]
    failed = 0
    shortest = {name: section for name, section in SHORTEST.items() if name != "seed"}
    tally = {f"{count} at once, {kind}": {"starts": 0, "failed": 0, "waits": 0} for count in counts for kind in KINDS}
    for index in range(rounds):
        turn, kind = index // len(KINDS), KINDS[index % len(KINDS)]
        count = counts[turn % len(counts)]
        config = product.write_config(seed=100 + turn, **shortest)
        started = time.perf_counter()
        waits, problems = identical_runs(product, config, processes[:count])
        row = tally[f"{count} at once, {kind}"]
        row["starts"] += 1
        row["failed"] += bool(problems)
        row["waits"] += waits
        line = f"round {index + 1}, {count} runs, {kind}: {waits} waits, {time.perf_counter() - started:.0f} s"
        print(line, *problems, sep="; ", flush=True)
        failed = sum(row["failed"] for row in tally.values())
        if report is not None:
            merge(report, "simultaneous", {"rounds": index + 1, "failed": failed, "starts": tally})
    print(f"{failed} of {rounds} starts failed")
    return failed


def main() -> None:
    """Print each failure, then how many there were; exit code 1 if any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--clients", action="store_true", help="two processes that have imported ZenML already")
    kind.add_argument("--setup", action="store_true", help="two setups at once")
    kind.add_argument("--runs", type=int, nargs="+", help="so many identical runs of a product with tiny models")
    parser.add_argument("--rounds", type=int, default=6, help="starts of --runs, fresh and warm in turn")
    parser.add_argument("--json", type=Path, help="a report to put the figures of --runs into, under `simultaneous`")
    arguments = parser.parse_args()
    if arguments.runs:
        with tempfile.TemporaryDirectory() as temporary:
            failed = rounds_of_runs(Path(temporary), arguments.runs, arguments.rounds, arguments.json)
        sys.exit(1 if failed else 0)
    started, failed = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        shared = Path(temporary, "state")
        if not arguments.setup and (problems := at_once((SETUP,), shared)):
            sys.exit(problems[0])
        if arguments.clients:
            # Before ZenML is imported here.
            os.environ.update(activated(shared))
        for index in range(arguments.pairs):
            if arguments.clients:
                problems = clients_at_once()
            elif arguments.setup:
                problems = at_once((SETUP, SETUP), Path(temporary, f"state{index}"))
            else:
                problems = at_once(PAIRS[index % len(PAIRS)], shared)
            failed += bool(problems)
            for line in problems:
                print(f"pair {index + 1}: {line}", flush=True)
            if (index + 1) % 20 == 0:
                print(f"{index + 1} pairs so far, {failed} failed", flush=True)
    print(f"{failed} of {arguments.pairs} pairs failed, {(time.perf_counter() - started) / 60:.1f} minutes")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
