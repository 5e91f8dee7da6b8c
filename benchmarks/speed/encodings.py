"""Hash-grid encodings: PyTorch, Triton and tiny-cuda-nn, forward and backward to the table.

Usage: python -m benchmarks.speed.encodings [--points 262144] [--repeats 50] [--device cuda]
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.hash_grid import HashEncoding, HashGrid, TcnnGrid

logger = logging.getLogger(__name__)

GRID = FieldConfig(levels=16, features_per_level=2, log2_table_size=19, base_resolution=16, level_scale=1.5)
WARM_UP = 3


def time_encodings(points: int = 262_144, repeats: int = 50, device: str = "cuda") -> dict[str, list[float]]:
    """Milliseconds of `repeats` calls, forward and backward to the table, per implementation and precision.

    All run on the same random points of the cube, in turns, so that a change of the clock rate meets all of them. What
    does not work here is left out, with a log line; on a CPU that is all but PyTorch.

    Args:
        points: how many.
        repeats: samples per encoding, after some that are not counted.
        device: cuda, timed by CUDA events; or cpu, timed by the clock.

    Returns:
        Samples by name: `torch fp32`, `triton fp32`, `triton fp16`, `tcnn fp32`, `tcnn fp16`.
    """
    generator = torch.Generator().manual_seed(0)
    places = (torch.rand(points, 3, generator=generator) * 2 - 1).to(device)
    calls: dict[str, Callable[[], object]] = {}
    for name, make in _contenders(device).items():
        try:
            call = _forward_and_backward(make().to(device), places)
            for _ in range(WARM_UP):
                call()
        except Exception as error:  # a library built for another card can raise anything
            logger.warning("%s is left out: %s", name, error)
        else:
            calls[name] = call
    measure = _measure_on_gpu if torch.device(device).type == "cuda" else _measure_on_cpu
    return measure(calls, repeats)


def _contenders(device: str) -> dict[str, Callable[[], HashEncoding]]:
    """How to make each encoding."""
    makers: dict[str, Callable[[], HashEncoding]] = {"torch fp32": lambda: HashGrid(GRID)}
    if torch.device(device).type == "cuda":
        for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            makers[f"triton {precision}"] = lambda dtype=dtype: _triton_grid(dtype)
            makers[f"tcnn {precision}"] = lambda dtype=dtype: TcnnGrid(GRID, dtype)
    return makers


def _triton_grid(dtype: torch.dtype) -> HashEncoding:
    from dreambooth3d.nerf.field.triton_grid import TritonGrid

    return TritonGrid(GRID, dtype)


def _forward_and_backward(grid: HashEncoding, places: Tensor) -> Callable[[], object]:
    """A call that encodes the places and takes the gradient of the table."""
    (table,) = grid.parameters()
    upstream = torch.randn_like(grid.encode(places))
    return lambda: torch.autograd.grad(grid.encode(places), table, upstream)


def _measure_on_gpu(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Samples by CUDA events; the host runs ahead, so that its own time does not count."""
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) for start, end in pairs] for name, pairs in events.items()}


def _measure_on_cpu(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Samples by the clock."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = perf_counter()
            call()
            samples[name].append((perf_counter() - start) * 1e3)
    return samples


def main() -> None:
    """Print the median and the fastest sample of each encoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=262_144)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    print(f"{arguments.points} points, forward and backward to the table, on {arguments.device}, ms: median, least")
    for name, samples in time_encodings(**vars(arguments)).items():
        print(f"{name:<12} {statistics.median(samples):8.3f} {min(samples):8.3f}")


if __name__ == "__main__":
    main()
