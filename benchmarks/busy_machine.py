"""What idle OpenMP threads cost where processes share cores: one training, and several at once, by environment.

Each setting has processes of its own. Blocks of all settings alternate, alone and at once, in an order that rotates, so
that whatever else the machine does meets each alike; a setting is compared with `as is` within the same round.

Usage: python -m benchmarks.busy_machine [--rounds 12] [--processes 3] [--threads 2] [--seconds 2] [--settings NAME ...]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dreambooth3d.environment import SPINNING

AS_IS = "as is"
SETTINGS: dict[str, dict[str, str]] = {
    AS_IS: {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (500, 2000, 6000, 20000)},
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Processes:
    """The processes of one setting.

    Attributes:
        name: of the setting.
        children: which wait for a line `SECONDS`, work so long and answer with the median time of a step.
        seconds: the medians of all blocks, by how many processes were at work.
    """

    name: str
    children: list[subprocess.Popen[str]]
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def work(self, count: int, duration_s: float) -> None:
        """Let the first `count` processes work at the same time, and note the median time of a step."""
        at_work = self.children[:count]
        for child in at_work:
            child.stdin.write(f"{duration_s}\n")
            child.stdin.flush()
        medians = [float(child.stdout.readline()) for child in at_work]
        self.seconds.setdefault(count, []).append(statistics.median(medians))


def start(name: str, variables: Mapping[str, str], count: int, threads: int) -> Processes:
    """Start the processes of a setting; each answers once it is warm."""
    clean = {key: value for key, value in os.environ.items() if key not in (*SPINNING, *_THREADS)}
    command = [sys.executable, "-m", "benchmarks.busy_machine", "--child", "--threads", str(threads)]
    children = []
    for _ in range(count):
        child = subprocess.Popen(
            command, env=clean | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        child.stdout.readline()
        children.append(child)
    return Processes(name, children)


def child(threads: int) -> None:
    """A small convolutional network's forward and backward pass, over and over, for as long as each line says."""
    import torch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(6):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.GroupNorm(8, 64), torch.nn.SiLU()]
    network, images = torch.nn.Sequential(*layers), torch.randn(4, 64, 32, 32, generator=generator)

    def step() -> float:
        started = time.perf_counter()
        network.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
        return time.perf_counter() - started

    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        end, times = time.perf_counter() + float(line), []
        while time.perf_counter() < end or len(times) < 3:
            times.append(step())
        print(statistics.median(times), flush=True)


def measure(kinds: Sequence[Processes], rounds: int, duration_s: float) -> None:
    """Alternate the blocks of all settings."""
    several = len(kinds[0].children)
    for number in range(rounds):
        for kind in [*kinds[number % len(kinds) :], *kinds[: number % len(kinds)]]:
            for count in (1, several):
                kind.work(count, duration_s)


def report(kinds: Sequence[Processes]) -> None:
    """Print a table: medians over rounds with 10th and 90th percentile, and the median of ratios within a round."""
    for count in sorted(kinds[0].seconds):
        title = "alone" if count == 1 else f"{count} at once"
        print(f"\n{title:<28} {'ms a step':>10}   {'10th, 90th percentile':<22}   to as is")
        base = kinds[0].seconds[count]
        for kind in kinds:
            times = sorted(kind.seconds[count])
            low, high = times[len(times) // 10], times[-1 - len(times) // 10]
            ratio = statistics.median(own / other for own, other in zip(kind.seconds[count], base, strict=True))
            print(
                f"{kind.name:<28} {1e3 * statistics.median(times):10.1f}   [{1e3 * low:8.1f}, {1e3 * high:8.1f}]   "
                f"{ratio:8.2f}"
            )


def _processor_time() -> tuple[float, float]:
    """Busy and total processor time since the start of the machine, in ticks; zeros where the system does not tell."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0, 0.0
    ticks = [float(value) for value in first.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _own_ticks(kinds: Sequence[Processes]) -> float:
    """Processor time of the children since their start, in ticks."""
    total = 0.0
    for kind in kinds:
        for process in kind.children:
            values = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += float(values[11]) + float(values[12])
    return total


def main() -> None:
    """Print the machine, its state while this ran, and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.threads)
        return
    from benchmarks.machine import machine

    chosen = [AS_IS, *(name for name in arguments.settings if name != AS_IS)]
    kinds = [start(name, SETTINGS[name], arguments.processes, arguments.threads) for name in chosen]
    try:
        load = os.getloadavg()[0]
        busy, total, own = *_processor_time(), _own_ticks(kinds)
        measure(kinds, arguments.rounds, arguments.seconds)
        others = _processor_time()[0] - busy - (_own_ticks(kinds) - own)
        share = others / max(1.0, _processor_time()[1] - total)
        print(
            f"{machine('cpu')}, {arguments.threads} threads a process, {arguments.rounds} rounds of "
            f"{arguments.seconds:g} s blocks\n"
            f"load average {load:.1f} at the start; other processes took {share:.0%} of the processor time meanwhile"
        )
        report(kinds)
    finally:
        for kind in kinds:
            for process in kind.children:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
