"""Commands that start at the same moment, in pairs, and how many of them fail.

Every pair is one of `PAIRS`, in turn, in a folder of state of its own, so that the user's is not touched. `--clients`
starts two processes that have imported ZenML already, and look up the stack at the same moment: less time between
starts, and closer in time. `--setup` starts two `dreambooth3d setup` at once, each time on an empty folder.

Usage: python -m benchmarks.simultaneous [--pairs 200] [--clients | --setup]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from dreambooth3d.cli.setup import STACK
from dreambooth3d.environment import ACTIVE, HOME, SETTINGS, repository

SETUP = ("dreambooth3d", "setup")
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


def main() -> None:
    """Print each failure, then how many there were; exit code 1 if any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--clients", action="store_true", help="two processes that have imported ZenML already")
    kind.add_argument("--setup", action="store_true", help="two setups at once")
    arguments = parser.parse_args()
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
