"""Work beside the main stream: how many samples rays have is known to the device first, and the host must ask.

Asked on the main stream, the host would wait for all that it has queued there, the diffusion model included, and the
device would then wait for the host to launch the rendering. On a stream of its own the question is answered while the
main stream is still busy with the step before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid
from dreambooth3d.nerf.rendering.sampling import Sampler, Samples


@functools.lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def moment(device: torch.device) -> torch.cuda.Event | None:
    """A mark after all that the main stream has been given so far; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


@contextmanager
def aside(device: torch.device, *after: torch.cuda.Event | None) -> Iterator[Handover]:
    """Run what is launched inside on a stream of its own, once the moments `after` have passed; on a CPU as usual.

    What the main stream is to use must be given to the handover, else its memory may be used again too early.
    """
    handover = Handover()
    if device.type != "cuda":
        yield handover
        return
    main, own = torch.cuda.current_stream(device), _stream(device)
    for event in after:
        if event is not None:
            own.wait_event(event)
    with torch.cuda.stream(own):
        yield handover
    main.wait_stream(own)
    for tensor in handover.tensors:
        if tensor.is_cuda:
            tensor.record_stream(main)


class Handover:
    """What comes back to the main stream."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def give(self, *values: object) -> None:
        """Hand tensors over, and those in tuples and dataclasses."""
        for value in values:
            if isinstance(value, Tensor):
                self.tensors.append(value)
            elif isinstance(value, tuple | list):
                self.give(*value)
            elif dataclasses.is_dataclass(value):
                self.give(*(getattr(value, field.name) for field in dataclasses.fields(value)))


def sample_aside(
    origins: Tensor,
    directions: Tensor,
    sampler: Sampler,
    occupancy: OccupancyGrid,
    generator: torch.Generator | None,
    ready: torch.cuda.Event | None,
) -> Samples:
    """The sampler's samples of rays that the main stream has computed at the moment `ready`; see `Sampler`."""
    with aside(origins.device, ready, occupancy.changed) as handover:
        samples = sampler(origins, directions, occupancy, generator)
        handover.give(samples)
    return samples
