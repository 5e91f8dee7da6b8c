"""What the commands cost: seconds of computing, by all their processes, and lines printed.

Usage: python -m benchmarks.command_line [RUN RUN]; the two runs, by default the newest, are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence


def run(*arguments: str) -> tuple[float, str]:
    """Run a command; its seconds of computing, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dreambooth3d", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if result.returncode and arguments[0] != "doctor":  # which says by it that something is broken
        raise SystemExit(f"{' '.join(arguments)}: {result.stderr.strip()}")
    return seconds, result.stdout


def commands(runs: Sequence[str]) -> list[tuple[str, ...]]:
    """What is measured; comparisons where there are two runs."""
    found = [("--help",), ("--version",), ("runs", "list"), ("runs", "list", "--json")]
    if runs:
        found += [("runs", "show", runs[0]), ("runs", "show", runs[0], "--all")]
    if len(runs) > 1:
        found += [("runs", "compare", *runs[:2]), ("runs", "compare", *runs[:2], "--all")]
    found.append(("photos", "check", "data/corgi"))
    return [*found, ("config", "check", "configs/demo.yaml"), ("doctor",), ("doctor", "configs/demo.yaml")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="two runs; default the newest")
    runs = parser.parse_args(arguments).runs
    if not runs:
        runs = [row["run"] for row in json.loads(run("runs", "list", "--json", "--limit", "2")[1])]
    print("| command | CPU seconds | lines |\n|---|---|---|")
    for command in commands(runs):
        seconds, printed = min((run(*command) for _ in range(2)), key=lambda measured: measured[0])
        shown = " ".join("RUN" if word in runs else word for word in command)
        print(f"| `{shown}` | {seconds:.1f} | {len(printed.splitlines())} |", flush=True)


if __name__ == "__main__":
    main()
