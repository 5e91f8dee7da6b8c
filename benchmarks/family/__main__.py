"""Command line of the benchmark of the family: from a prompt alone, and personalised; exit code 1 if a run failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.family import personalised, plan, report
from benchmarks.quality.plan import Run
from benchmarks.quality.results import Results
from benchmarks.quality.running import add_options, run_pending
from benchmarks.real.layout import photo_sets, rendered
from dreambooth3d.errors import DreamBooth3DError

RESULTS = Path("outputs/benchmarks/family")
SHOWN = ("r_precision", "clip_t", "janus_excess", "front_recall")
SHOWN_PERSONALISED = ("aligned/psnr_fg", "psnr_fg_aligned", "mesh/field_psnr", "mesh/field_iou")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.family", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one prompt or subject, few steps and rays, for a CPU")
    add_options(parser)
    parser.add_argument("--personalised", action="store_true", help="photos as a field, a mesh, Gaussians, not prompts")
    parser.add_argument("--real", type=Path, help="with --personalised: also a folder of photo sets with their truth")
    parser.add_argument("--only-real", action="store_true", help="with --real: not the toybox")
    parser.add_argument("--presets", nargs="*", default=(), choices=plan.PRESETS, help="only these; default all")
    parser.add_argument("--set", default="all", choices=plan.SETS, help="only these prompts")
    parser.add_argument("--prompts", nargs="*", default=(), help=f"only these, such as {plan.PROMPTS[0]}")
    parser.add_argument("--seeds", nargs="*", type=int, default=plan.SEEDS)
    parser.add_argument("--results", type=Path, help=f"folder of finished runs; default {RESULTS}")
    parser.add_argument("--report", type=Path, help="folder of the report; default beside the results")
    parser.add_argument("--only-report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if arguments.real is not None and not arguments.personalised:
        parser.error("--real goes with --personalised: a prompt has no photos")
    if arguments.only_real and arguments.real is None:
        parser.error("--only-real needs --real FOLDER")
    if unknown := [name for name in arguments.prompts if name not in plan.PROMPTS]:
        parser.error(f"{unknown[0]} is no prompt of this benchmark. Choose from {', '.join(plan.PROMPTS)}")
    return arguments


def main() -> int:
    """Run what is not finished, then write the report of all that is."""
    arguments = parse_arguments()
    quick = "-quick" if arguments.quick else ""
    results = Results(arguments.results or RESULTS.with_name(f"{RESULTS.name}{quick}"), arguments.quick)
    subjects = Results(results.folder / personalised.FOLDER, arguments.quick)
    try:
        runs, failed = _personalised(arguments, subjects) if arguments.personalised else _prompted(arguments, results)
    except DreamBooth3DError as error:
        print(error, file=sys.stderr)
        return 1
    folder = arguments.report or results.folder
    report.write(_prompted_runs(arguments), results, folder, subjects)
    left = sum(run not in (subjects if arguments.personalised else results) for run in runs)
    print(f"{len(runs) - left} of {len(runs)} runs are finished; report in {folder}")
    return int(failed)


def _prompted_runs(arguments: argparse.Namespace) -> list[Run]:
    """The presets on the prompts that are asked for."""
    prompts = arguments.prompts or plan.SETS[arguments.set]
    if arguments.quick and not arguments.prompts:
        prompts = plan.DEVELOPMENT_PROMPTS[: plan.QUICK_COUNT]
    return plan.all_runs(arguments.presets, prompts, arguments.seeds)


def _prompted(arguments: argparse.Namespace, results: Results) -> tuple[list[Run], bool]:
    """All runs of the presets, and whether one failed now."""
    runs = _prompted_runs(arguments)
    if arguments.only_report:
        return runs, False
    return runs, run_pending(arguments, runs, results, source=plan.Prompted, shown=SHOWN)


def _personalised(arguments: argparse.Namespace, results: Results) -> tuple[list[Run], bool]:
    """All runs of the kinds, and whether one failed now.

    Raises:
        DreamBooth3DError: the folder of photo sets cannot be used.
    """
    folder, keys = None, []
    if arguments.real is not None:
        folder = rendered(arguments.real, results.folder / "rendered").resolve()
        sets = photo_sets(folder)
        for each in sets:
            each.check()
        keys = [each.key for each in sets]
    runs = personalised.all_runs(keys, arguments.seeds, arguments.quick)
    runs = [run for run in runs if not arguments.only_real or run.subject in keys]
    if arguments.only_report:
        return runs, False
    sources = personalised.Sources(folder)
    job = {"source": sources, "shown": SHOWN_PERSONALISED, "exports": True}
    return runs, run_pending(arguments, runs, results, **job)


if __name__ == "__main__":
    sys.exit(main())
