"""The long form of the resilience tests: `make test-resilience`. Its figures go to docs/resilience.json and .md.

Usage: python -m tests.resilience [--kills 30] [--seed 0] [--skip kills] [--skip faults]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.resilience_report import merge
from tests.product import ROOT
from tests.resilience.kills import CLOCKS, SIGNALS, Tally, plan, survive, untouched_run
from tests.resilience.shim import AVAILABLE
from tests.resilience.table import faults, passed

REPORT = ROOT / "docs" / "resilience.json"
PER_RUN = 10


def main() -> None:
    """Exit with 1 if something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.resilience")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", action="append", choices=("kills", "faults"), default=[])
    arguments = parser.parse_args()
    good = "kills" in arguments.skip or _kills(arguments.kills, arguments.seed)
    good &= "faults" in arguments.skip or _faults()
    sys.exit(not good)


def _kills(count: int, seed: int) -> bool:
    kills, signals, clocks, wrong = Tally(), Tally(), Tally(), []
    with tempfile.TemporaryDirectory() as folder:
        untouched = untouched_run(Path(folder))
        for tally, chain in (
            *((kills, chain) for chain in plan(count, PER_RUN, seed)),
            (signals, SIGNALS),
            *(((clocks, CLOCKS),) if AVAILABLE else ()),
        ):
            print(f"{len(chain)} interruptions of one run:", flush=True)
            wrong += survive(chain, untouched, tally)
    others = {"told to stop": dataclasses.asdict(signals), "wrong clock": dataclasses.asdict(clocks)}
    values = dataclasses.asdict(kills) | {"others": others}
    print(f"kills: {values}", flush=True)
    merge(REPORT, "kills", values)
    return not wrong


def _faults() -> bool:
    listed = faults()
    good = passed(sorted({test for fault in listed for test in fault.tests}))
    tested = [fault for fault in listed if set(fault.tests) <= good]
    for fault in listed:
        if fault not in tested:
            print(f"not shown: {fault.name} ({', '.join(sorted(set(fault.tests) - good))})", flush=True)
    print(f"faults: {len(listed)} listed, {len(tested)} tested", flush=True)
    merge(REPORT, "faults", {"listed": len(listed), "tested": len(tested)})
    return len(tested) == len(listed)


if __name__ == "__main__":
    main()
