"""Milliseconds per view of the demo's rendering on a CPU: dense volume, 32x32 rays, forward and backward.

Usage: python -m benchmarks.render_cpu [--threads 2] [--repeats 30] [--samples 64] [--size 32] [--encoding dense]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.machine import processor
from dreambooth3d.cameras import random_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.sampling import DenseSampler, Samples
from dreambooth3d.nerf.rendering.volume import render_cameras, sample_weights

VIEWS = 4


def milliseconds(call: Callable[[], None], repeats: int) -> list[float]:
    """Sorted wall-clock times after three warm-up calls."""
    times = []
    for index in range(repeats + 3):
        started = time.perf_counter()
        call()
        if index >= 3:
            times.append(1e3 * (time.perf_counter() - started))
    return sorted(times)


def report(name: str, times: list[float], per: int = 1) -> None:
    """Print median and spread (10th and 90th percentile)."""
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    print(f"{name:<48} {statistics.median(times) / per:7.2f} ms   [{low / per:.2f}, {high / per:.2f}]")


def step(field: Field, size: int, sampler: DenseSampler, generator: torch.Generator) -> None:
    """One forward and backward pass over `VIEWS` views, upsampled to 64 pixels, without guidance."""
    rendering = render_cameras(field, random_cameras(VIEWS, generator), size, sampler=sampler, generator=generator)
    images = torch.nn.functional.interpolate(rendering.images, size=(64, 64), mode="bilinear")
    field.zero_grad(set_to_none=True)
    images.square().mean().backward()


def compositing(sampler: DenseSampler, size: int, repeats: int) -> None:
    """nerfacc's dense compositing against plain exp and cumsum on the same tensors."""
    rays = VIEWS * size**2
    starts = torch.linspace(1.5, 3.5, sampler.samples_per_ray).expand(rays, -1).contiguous()
    slots = torch.arange(starts.numel())
    ends = starts + 2 / sampler.samples_per_ray
    ray = slots // sampler.samples_per_ray
    bounds = (starts, ends)
    samples = Samples(slots, ray, starts.flatten(), ends.flatten(), rays, sampler.samples_per_ray, slots, bounds)
    density = torch.rand(starts.numel(), requires_grad=True)

    def plain() -> None:
        depth = density.view_as(starts) * (ends - starts)
        weights = torch.exp(-(torch.cumsum(depth, 1) - depth)) * (1 - torch.exp(-depth))
        torch.autograd.grad(weights.square().sum(), density)

    def nerfacc() -> None:
        torch.autograd.grad(sample_weights(samples, density).square().sum(), density)

    report("weights, nerfacc with packing (all views)", milliseconds(nerfacc, repeats))
    report("weights, plain exp and cumsum (all views)", milliseconds(plain, repeats))


def main() -> None:
    """Print the machine, then one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--encoding", choices=("dense", "hash_grid"), default="dense")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{processor()}, {arguments.threads} threads, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{arguments.encoding}, {VIEWS} views of {arguments.size}^2 rays, {arguments.samples} samples a ray\n")
    generator = torch.Generator().manual_seed(0)
    field, sampler = Field(FieldConfig(encoding=arguments.encoding)), DenseSampler(arguments.samples)

    def call() -> None:
        step(field, arguments.size, sampler, generator)

    report("per view, every cell occupied (first steps)", milliseconds(call, arguments.repeats), VIEWS)
    field.occupancy.update(field.density, 0.01, generator)
    share = field.occupancy.occupied.float().mean().item()
    report(f"per view, {share:.0%} of cells occupied (the blob)", milliseconds(call, arguments.repeats), VIEWS)

    def update() -> None:
        field.occupancy.update(field.density, 0.01, generator)

    report("occupancy update (every 16 steps)", milliseconds(update, arguments.repeats))
    optimizer = torch.optim.Adam(field.parameters(), fused=True)
    report("Adam (per step)", milliseconds(optimizer.step, arguments.repeats))
    compositing(sampler, arguments.size, arguments.repeats)


if __name__ == "__main__":
    main()
