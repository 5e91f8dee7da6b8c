"""Command line of the benchmark of real subjects; exit code 1 if a run failed or the folder cannot be used."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.quality.results import Results
from benchmarks.quality.running import add_options, run_pending
from benchmarks.real import plan, report
from benchmarks.real.layout import MaskedPhotos, PhotoSet, masked_photos, photo_sets, rendered
from benchmarks.real.photos import Measured, measure_pending
from dreambooth3d.errors import DreamBooth3DError

RESULTS = Path("outputs/benchmarks/real")
SHOWN = ("psnr_fg_aligned", "mask_iou_aligned", "psnr_fg", "heading_deg")
PARTS = ("runs", "photos")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=__doc__)
    parser.add_argument("folder", type=Path, help="with KIND/SUBJECT/subject.json, or a make.py that renders that")
    parser.add_argument("--quick", action="store_true", help="one casual subject, few steps and rays, for a CPU")
    add_options(parser)
    parser.add_argument("--kinds", nargs="*", default=(), help="only these kinds of photos, such as casual")
    parser.add_argument("--subjects", nargs="*", default=(), help="only these")
    parser.add_argument("--methods", nargs="*", default=(), choices=[method.name for method in plan.METHODS])
    parser.add_argument("--seeds", nargs="*", type=int, default=plan.SEEDS)
    parser.add_argument("--only", choices=PARTS, help="only the runs, or only what is made of the photos (on the CPU)")
    parser.add_argument("--results", type=Path, help=f"folder of finished runs; default {RESULTS}/NAME of the folder")
    parser.add_argument("--report", type=Path, help="folder of the report; default beside the results")
    parser.add_argument("--only-report", action="store_true", help="run nothing")
    return parser.parse_args()


def main() -> int:
    """Run what is not finished, then write the report of all that is."""
    arguments = parse_arguments()
    try:
        return run(arguments)
    except DreamBooth3DError as error:
        print(error, file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace) -> int:
    """Everything; the exit code.

    Raises:
        DreamBooth3DError: the folder cannot be used.
    """
    name = arguments.folder.resolve().name
    folder = arguments.results or RESULTS / (f"{name}-quick" if arguments.quick else name)
    real = rendered(arguments.folder, folder / "rendered")
    sets = chosen_sets(arguments, real)
    others = [] if arguments.subjects or arguments.quick else masked_photos(arguments.folder)
    runs = plan.all_runs(sets, arguments.methods, arguments.seeds[:1] if arguments.quick else arguments.seeds)
    results, measured = Results(folder, arguments.quick), Measured(folder)
    until = time.time() + 60 * arguments.minutes
    failed = False
    if not arguments.only_report and arguments.only != "photos":
        source = partial(plan.Real.of, real.resolve())
        failed = run_pending(arguments, runs, results, source=source, shown=SHOWN)
    if not arguments.only_report and arguments.only != "runs":
        failed = measure(arguments, [*sets, *others], measured, until) or failed
    written = arguments.report or folder
    report.write(report.Finished(sets, others, runs, results, measured), written)
    left = sum(each not in results for each in runs)
    print(f"{len(runs) - left} of {len(runs)} runs are finished; report in {written}")
    return int(failed)


def chosen_sets(arguments: argparse.Namespace, real: Path) -> list[PhotoSet]:
    """The photo sets that are asked for; the last casual one where nothing is, and it is to be quick.

    Raises:
        LayoutError: there is none, or one is not as it must be.
    """
    sets = photo_sets(real, arguments.kinds, arguments.subjects)
    if arguments.quick and not arguments.subjects:
        sets = [each for each in sets if each.kind == sets[-1].kind][-1:]
    for each in sets:
        each.check()
    return sets


def measure(
    arguments: argparse.Namespace, sets: Sequence[PhotoSet | MaskedPhotos], measured: Measured, until: float
) -> bool:
    """Measure masks and cameras; whether that failed anywhere."""
    workers = arguments.workers or max(1, (os.cpu_count() or 1) // 2)
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // workers)
    failed = False
    for line in measure_pending(sets, measured, workers, threads, until):
        failed = failed or ": FAILED" in line
        print(line, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
