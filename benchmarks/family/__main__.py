"""Command line of the benchmark of assets made from a prompt alone; exit code 1 if a run failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.family import plan, report
from benchmarks.quality.results import Results
from benchmarks.quality.running import add_options, run_pending

RESULTS = Path("outputs/benchmarks/family")
SHOWN = ("r_precision", "clip_t", "janus_excess", "front_recall")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.family", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one development prompt, few steps and rays, for a CPU")
    add_options(parser)
    parser.add_argument("--presets", nargs="*", default=(), choices=plan.PRESETS, help="only these; default all")
    parser.add_argument("--set", default="all", choices=plan.SETS, help="only these prompts")
    parser.add_argument("--prompts", nargs="*", default=(), help=f"only these, such as {plan.PROMPTS[0]}")
    parser.add_argument("--seeds", nargs="*", type=int, default=plan.SEEDS)
    parser.add_argument("--results", type=Path, help=f"folder of finished runs; default {RESULTS}")
    parser.add_argument("--report", type=Path, help="folder of the report; default beside the results")
    parser.add_argument("--only-report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.prompts if name not in plan.PROMPTS]:
        parser.error(f"{unknown[0]} is no prompt of this benchmark. Choose from {', '.join(plan.PROMPTS)}")
    return arguments


def main() -> int:
    """Run what is not finished, then write the report of all that is."""
    arguments = parse_arguments()
    prompts = arguments.prompts or plan.SETS[arguments.set]
    if arguments.quick and not arguments.prompts:
        prompts = plan.DEVELOPMENT_PROMPTS[: plan.QUICK_COUNT]
    runs = plan.all_runs(arguments.presets, prompts, arguments.seeds)
    quick = "-quick" if arguments.quick else ""
    results = Results(arguments.results or RESULTS.with_name(f"{RESULTS.name}{quick}"), arguments.quick)
    failed = False
    if not arguments.only_report:
        failed = run_pending(arguments, runs, results, source=plan.Prompted, shown=SHOWN)
    folder = arguments.report or results.folder
    report.write(runs, results, folder)
    left = sum(run not in results for run in runs)
    print(f"{len(runs) - left} of {len(runs)} runs are finished; report in {folder}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
