"""The long form of the resilience tests: `make test-resilience`. Its figures go to docs/resilience.json and .md.

Which faults were shown is kept in the checkout's state, so that `--again` runs only the tests that are left. The three
tests of whole chains of interruptions are not run: the kills are the same, and more of them.

Usage: python -m tests.resilience [--kills 30] [--seed 0] [--skip kills] [--skip faults] [--again]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.resilience_report import merge
from tests.product import ROOT
from tests.resilience.kills import CLOCKS, SIGNALS, Tally, plan, survive, untouched_run
from tests.resilience.shim import AVAILABLE
from tests.resilience.table import faults, passed, shown_by_kills

REPORT = ROOT / "docs" / "resilience.json"
SHOWN = ROOT / ".dreambooth3d" / "shown_faults.json"
PER_RUN = 10


def main() -> None:
    """Exit with 1 if something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.resilience")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", action="append", choices=("kills", "faults"), default=[])
    parser.add_argument("--again", action="store_true", help="only the faults that the last time did not show")
    arguments = parser.parse_args()
    good = "kills" in arguments.skip or _kills(arguments.kills, arguments.seed)
    good &= "faults" in arguments.skip or _faults(arguments.again)
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


def _faults(again: bool) -> bool:
    listed = faults()
    named = {test for fault in listed for test in fault.tests}
    good = shown_by_kills(json.loads(REPORT.read_text()).get("kills", {}))
    good |= named & {*json.loads(SHOWN.read_text())} if again and SHOWN.is_file() else set()
    good |= passed(sorted(named - good))
    SHOWN.parent.mkdir(exist_ok=True)
    SHOWN.write_text(json.dumps(sorted(good)))
    tested = [fault for fault in listed if set(fault.tests) <= good]
    for fault in listed:
        if fault not in tested:
            print(f"not shown: {fault.name} ({', '.join(sorted(set(fault.tests) - good))})", flush=True)
    print(f"faults: {len(listed)} listed, {len(tested)} tested", flush=True)
    merge(REPORT, "faults", {"listed": len(listed), "tested": len(tested)})
    return len(tested) == len(listed)


if __name__ == "__main__":
    main()
