"""Command line of the quality benchmark; exit code 1 if a run failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.quality import plan, report
from benchmarks.quality.results import Results
from benchmarks.quality.running import add_options, run_pending

RESULTS = Path("outputs/benchmarks/quality")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("table", choices=plan.TABLES)
    parser.add_argument("--quick", action="store_true", help="one development subject, few steps and rays, for a CPU")
    add_options(parser)
    parser.add_argument("--subjects", nargs="*", default=(), help="only these of the table's subjects")
    parser.add_argument("--methods", nargs="*", help="only these of the table's methods")
    parser.add_argument("--results", type=Path, help=f"folder of finished runs; default {RESULTS}/TABLE")
    parser.add_argument("--report", type=Path, help="folder of the report; default beside the results")
    parser.add_argument("--variants", type=Path, default=plan.ABLATIONS, help="what the table ablations compares")
    parser.add_argument("--track", action="store_true", help="log finished runs to the active stack's MLflow")
    parser.add_argument("--only-report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if arguments.quick and arguments.table == "hindsight":
        parser.error("hindsight has no quick version; run it on a GPU, or with --subjects and --methods")
    return arguments


def main() -> int:
    """Run what is not finished, then write the report of all that is."""
    arguments = parse_arguments()
    name, command = arguments.table, f"python -m benchmarks.quality {arguments.table}"
    if arguments.table == "ablations" and arguments.variants != plan.ABLATIONS:
        name, command = arguments.variants.stem, f"{command} --variants {arguments.variants}"
    table, command = (f"{name}-quick", f"{command} --quick") if arguments.quick else (name, command)
    results = Results(arguments.results or RESULTS / table, arguments.quick)
    runs = [
        run
        for run in plan.table_runs(arguments.table, arguments.quick, arguments.variants, arguments.subjects)
        if not arguments.methods or run.method.name in arguments.methods
    ]
    failed = False
    if not arguments.only_report:
        failed = run_pending(arguments, runs, results)
    folder = arguments.report or results.folder
    report.write(name, runs, results, folder, command)
    if arguments.track:
        log_rows(table, runs, results)
    left = sum(run not in results for run in runs)
    print(f"{len(runs) - left} of {len(runs)} runs are finished; report in {folder}")
    return int(failed)


def log_rows(table: str, runs: list[plan.Run], results: Results) -> None:
    """Log to MLflow; imported here, since a GPU machine that only computes needs neither MLflow nor ZenML."""
    from benchmarks.quality.tracking import EXPERIMENT, track
    from operations.records.rows import tracking_uri

    added = track(table, results.load(runs), results, tracking_uri())
    print(f"{added} new rows in the MLflow experiment {EXPERIMENT}")


if __name__ == "__main__":
    sys.exit(main())
