"""Work beside the main stream: what it gives back is right, and the host does not wait for the main stream."""

from __future__ import annotations

import copy
import time

import pytest
import torch

from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.aside import Handover, aside, moment, sample_aside
from dreambooth3d.nerf.rendering.sampling import DenseSampler, Samples
from dreambooth3d.nerf.rendering.volume import SampledRays, render_cameras, sample_cameras

CPU_AND_GPU = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LONG_CYCLES = 2_000_000_000
"""About a second of a GPU's time."""


def test_a_handover_finds_all_tensors() -> None:
    handover = Handover()
    samples = Samples(*(torch.zeros(1) for _ in range(4)), 1, 1, slots=torch.zeros(1), bounds=(torch.ones(1),) * 2)
    handover.give(torch.zeros(2), (torch.zeros(3), 5), SampledRays(torch.zeros(1, 3), torch.zeros(1, 3), samples), None)
    assert len(handover.tensors) == 2 + 2 + 4 + 1 + 2


def test_a_field_with_a_moment_can_be_copied() -> None:
    """Running averages are copies; an event of a device cannot be one."""
    field = Field(FieldConfig(encoding="dense", volume_resolution=8), "cpu", 8)
    field.occupancy.changed = torch.Event()
    twin = copy.deepcopy(field)
    assert twin.occupancy.changed is None and field.occupancy.changed is not None
    assert torch.equal(twin.occupancy.occupied, field.occupancy.occupied)


@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_images_are_those_of_one_stream(device: str) -> None:
    """Also while the main stream is busy, and with camera gradients through rays that it computed."""
    place = torch.device(device)
    field, sampler = Field(FieldConfig(encoding="dense", volume_resolution=16), place, 16), DenseSampler(32)
    field.occupancy.update(field.density, 0.01, torch.Generator().manual_seed(0))
    cameras = orbit_cameras(torch.tensor([0.0, 120.0]))
    expected = render_cameras(field, cameras.to(place), 12, sampler=sampler).images
    for _ in range(3):
        if device == "cuda":
            torch.cuda._sleep(LONG_CYCLES // 20)
        with aside(place, field.occupancy.changed) as handover:
            placed = cameras.to(place)
            sampled = sample_cameras(field, placed, 12, sampler, None)
            handover.give(placed, sampled)
        images = render_cameras(field, placed, 12, sampler=sampler, sampled=sampled).images
        with aside(place):
            # Would take the memory of what the main stream still has to read, had it not been handed over.
            torch.full_like(sampled.samples.points, float("nan"))
        del placed, sampled
        torch.testing.assert_close(images, expected)


@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_rays_with_gradients(device: str) -> None:
    place = torch.device(device)
    field = Field(FieldConfig(encoding="dense", volume_resolution=16), place, 16)
    shift = torch.zeros(3, device=place, requires_grad=True)
    origins, directions = (rays.reshape(-1, 3) for rays in orbit_cameras(torch.zeros(1)).to(place).rays(8, 8))
    moved, sampler = origins + shift, DenseSampler(16)
    plain = sampler(moved, directions, field.occupancy, None)
    beside = sample_aside(moved, directions, sampler, field.occupancy, None, moment(place))
    gradients = [torch.autograd.grad(field.density(each.points).sum(), shift)[0] for each in (plain, beside)]
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.gpu
def test_the_host_does_not_wait_for_the_main_stream() -> None:
    place = torch.device("cuda")
    field, cameras = (
        Field(FieldConfig(encoding="dense", volume_resolution=16), place, 16),
        orbit_cameras(torch.zeros(1)),
    )
    for busy in (False, True):
        torch.cuda.synchronize()
        started = time.perf_counter()
        if busy:
            torch.cuda._sleep(LONG_CYCLES)
        with aside(place, field.occupancy.changed) as handover:
            sampled = sample_cameras(field, cameras.to(place), 16, DenseSampler(32), None)
            handover.give(sampled)
        asked = time.perf_counter() - started
    torch.cuda.synchronize()
    assert len(sampled.samples.points) > 0
    assert asked < 0.5 * (time.perf_counter() - started), "it had its answer while the main stream was asleep"
