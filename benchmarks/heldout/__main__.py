"""Leave each photo of a folder out in turn, and compare it with the asset that the others give.

Exit code 1 if a run failed. Masks are those beside the photos (docs/masks.md) or what `photos.masks` finds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.heldout import report
from benchmarks.heldout.runs import Finished, Leaving, run_all
from benchmarks.quality.sharing import shared_gpu
from dreambooth3d.errors import DreamBooth3DError, PhotoSetError
from dreambooth3d.photos.check import inspect_folder
from dreambooth3d.photos.subject import photo_files, resolve_folder
from dreambooth3d.runtime import pick_device

RESULTS = Path("outputs/benchmarks/heldout")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heldout", description=__doc__)
    parser.add_argument("folder", type=Path, help="of photos")
    parser.add_argument("--class-noun", help="what they show, where no subject.yaml says so")
    parser.add_argument("--photos", nargs="*", help="leave out only these")
    parser.add_argument("--set", nargs="*", default=(), metavar="KEY=VALUE", help="over the preset bench/dreambooth3d")
    parser.add_argument("--quick", action="store_true", help="few steps and rays, for a CPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=1, help="processes, which share a GPU by MPS")
    parser.add_argument("--threads", type=int, help="CPU threads per process; default all cores together")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help=f"folder of finished runs; default {RESULTS}/FOLDER")
    parser.add_argument("--report", type=Path, help="folder of the report; default beside the results")
    return parser.parse_args()


def main() -> int:
    """Run what is not finished, then write the report of all that is."""
    arguments = parse_arguments()
    try:
        return leave_each_out(arguments)
    except DreamBooth3DError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def leave_each_out(arguments: argparse.Namespace) -> int:
    """The benchmark as the command line asks for it; the exit code.

    Raises:
        DreamBooth3DError: the photos, or a setting, cannot be used.
    """
    runs = planned(arguments)
    name = arguments.folder.name + ("_quick" if arguments.quick else "")
    finished = Finished(arguments.results or RESULTS / name)
    device = pick_device("cpu" if arguments.quick and arguments.device == "auto" else arguments.device).type
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.workers)
    deadline = time.time() + 60 * arguments.minutes
    failed = False
    with shared_gpu(device == "cuda" and arguments.workers > 1):
        given = {"workers": arguments.workers, "threads": threads, "deadline": deadline}
        for line in run_all(runs, finished, device, **given):
            failed = failed or ": FAILED" in line
            print(line, flush=True)
    noun = f" --class-noun {arguments.class_noun}" if arguments.class_noun else ""
    overrides = f" --set {' '.join(arguments.set)}" if arguments.set else ""
    command = f"python -m benchmarks.heldout {arguments.folder.name}{noun}{overrides}"
    folder = arguments.report or finished.folder
    print(report.write(name, runs, finished, folder, command + " --quick" * arguments.quick))
    return int(failed)


def planned(arguments: argparse.Namespace) -> list[Leaving]:
    """One run for each photo, or for each of those that are named.

    Raises:
        PhotoSetError: there are no such photos, or so few that none can be left out.
        ConfigError: a setting is wrong.
    """
    folder = arguments.folder.absolute()
    shared = (str(folder), arguments.class_noun, tuple(arguments.set), arguments.quick, arguments.seed)
    config = Leaving("none", *shared).config().photos
    resolve_folder(config)
    names = [path.name for path in photo_files(folder)]
    unknown = set(arguments.photos or ()) - set(names)
    if unknown:
        raise PhotoSetError(f"{folder}: there is no photo {', '.join(sorted(unknown))}. There are {', '.join(names)}.")
    runs = [Leaving(name, *shared) for name in arguments.photos or names]
    for run in runs[:1]:
        inspect_folder(folder, run.config().photos)
    return runs


if __name__ == "__main__":
    sys.exit(main())
