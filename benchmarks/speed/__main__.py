"""Command line of the speed benchmark."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.machine import machine
from benchmarks.speed import jobs, peers, report
from benchmarks.speed.random_model import write_model
from dreambooth3d.runtime import pick_device
from operations.launch.identity import git_commit

RESULTS = Path("outputs/benchmarks/speed")
PEERS = {"diffusers": "--diffusers-script FILE", "threestudio": "--threestudio DIR"}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    names = [*jobs.JOBS, *PEERS]
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"what to measure; default all: {', '.join(names)}")
    parser.add_argument("--model", type=Path, help="folder of the base model; default random weights of SD 1.5's size")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=100, help="timed steps of each configuration")
    parser.add_argument("--diffusers-script", type=Path, metavar="FILE", help="diffusers' train_dreambooth.py")
    parser.add_argument("--threestudio", type=Path, metavar="DIR", help="a checkout of threestudio, installed")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what was measured")
    parser.add_argument("--report", type=Path, help="folder of the report; default beside the results")
    parser.add_argument("--commit", help="what results record; default that of the checkout")
    parser.add_argument("--only-report", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="a tiny model on a CPU, to see that it runs")
    arguments = parser.parse_args()
    unknown = set(arguments.jobs) - set(names)
    if unknown:
        parser.error(f"unknown job {min(unknown)}; there are {', '.join(names)}")
    arguments.jobs = arguments.jobs or names
    return arguments


def main() -> int:
    """Exit code 1 if a job failed."""
    arguments = parse_arguments()
    results = arguments.results.parent / f"{arguments.results.name}-quick" if arguments.quick else arguments.results
    results.mkdir(parents=True, exist_ok=True)
    failed = False if arguments.only_report else measure(arguments, results.resolve())
    print(report.write(results, arguments.report or results))
    return int(failed)


def measure(arguments: argparse.Namespace, results: Path) -> bool:
    """Run the jobs; whether one failed."""
    device = pick_device("cpu" if arguments.quick and arguments.device == "auto" else arguments.device).type
    about = {
        "machine": machine(device),
        "commit": arguments.commit or git_commit(),
        "date": datetime.date.today().isoformat(),
    }
    steps = 3 if arguments.quick else arguments.steps
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or write_model(
            Path(folder) / "model", "sd15", scale=0 if arguments.quick else 1, dtype=torch.float32
        )
        for name in arguments.jobs:
            result = one(name, arguments, results / f"{name}.json", model.resolve(), device, steps, Path(folder))
            if result is None:
                print(f"{name}: left out, as {PEERS[name]} was not given", flush=True)
                continue
            failed = failed or "failed" in str(result.get("missing"))
            print(f"{name}: {result.get('missing') or 'done'}", flush=True)
            (results / f"{name}.json").write_text(json.dumps(about | result, indent=1))
    return failed


def one(
    name: str, arguments: argparse.Namespace, output: Path, model: Path, device: str, steps: int, folder: Path
) -> dict | None:
    """A job's result; None for a peer that is not here."""
    if name == "diffusers":
        script = arguments.diffusers_script
        return script and peers.diffusers_dreambooth(script.resolve(), model, folder, steps)
    if name == "threestudio":
        checkout = arguments.threestudio
        return checkout and peers.threestudio_sds(checkout.resolve(), model, folder, steps)
    return jobs.run(name, output, model, device, steps, folder / "compiled")


if __name__ == "__main__":
    sys.exit(main())
