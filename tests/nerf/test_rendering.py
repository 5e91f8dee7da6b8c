"""Sampling and compositing against closed forms and a float64 loop."""

import math

import pytest
import torch

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import orbit_cameras, random_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.kinds import load_representation, render_asset
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.occupancy import OccupancyGrid
from dreambooth3d.nerf.rendering.sampling import (
    DenseSampler,
    OccupancySampler,
    ball_bounds,
    make_sampler,
    nerfacc_cuda_available,
)
from dreambooth3d.nerf.rendering.volume import render_cameras, render_images, render_rays
from dreambooth3d.representation.shading import Shading
from tests.nerf.scenes import RED, UniformBall


def some_rays(size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    origins, directions = random_cameras(2, torch.Generator().manual_seed(3)).rays(size, size)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def chords(origins: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Length of each ray inside the unit ball, from the law of cosines in float64."""
    lengths = []
    for origin, direction in zip(origins.double().tolist(), directions.double().tolist(), strict=True):
        along = sum(a * b for a, b in zip(origin, direction, strict=True))
        squared = 1 - (sum(a * a for a in origin) - along**2)
        lengths.append(2 * math.sqrt(max(squared, 0.0)))
    return torch.tensor(lengths)


def test_bounds_are_on_the_ball_and_misses_are_empty() -> None:
    origins, directions = some_rays()
    near, far = ball_bounds(origins, directions)
    torch.testing.assert_close(far - near, chords(origins, directions), atol=2e-3, rtol=0)
    hit = far > 0
    on_ball = (origins + directions * far[:, None])[hit].norm(dim=-1)
    torch.testing.assert_close(on_ball, torch.ones_like(on_ball), atol=1e-3, rtol=0)
    near, far = ball_bounds(torch.tensor([[3.0, 0, 0]] * 2), torch.tensor([[0.0, 1, 0], [1.0, 0, 0]]))
    assert near.tolist() == far.tolist() == [0.0, 0.0]
    near, far = ball_bounds(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]]))
    assert (near.item(), far.item()) == (0.0, 1.0)


@pytest.mark.parametrize("jitter", [False, True])
def test_a_ball_of_one_density_has_the_closed_form_opacity_and_depth(jitter: bool) -> None:
    origins, directions = some_rays()
    sigma, chord = 1.7, chords(origins, directions)
    generator = torch.Generator().manual_seed(0) if jitter else None
    # A hair larger than the ball, so that samples at its very edge count.
    ball = UniformBall(sigma, radius=1.001)
    rays = render_rays(ball, origins, directions, sampler=DenseSampler(64), generator=generator)
    opacity = 1 - torch.exp(-sigma * chord)
    torch.testing.assert_close(rays.opacity, opacity, atol=2e-3, rtol=0)
    torch.testing.assert_close(rays.color, opacity[:, None] * RED, atol=2e-3, rtol=0)
    # Mean of an exponential distribution that is cut off at the chord.
    near, _ = ball_bounds(origins, directions)
    inside = 1 / sigma - chord * torch.exp(-sigma * chord) / opacity.clamp(min=1e-6)
    thick = chord > 0.3
    torch.testing.assert_close(rays.depth[thick], (near + inside)[thick], atol=5e-3, rtol=0)


def test_compositing_equals_a_float64_loop() -> None:
    torch.manual_seed(0)
    field = Field(FieldConfig(implementation="torch", levels=3, log2_table_size=8))
    torch.nn.init.normal_(field.encoding.grid["params"], std=2.0)
    origins, directions = some_rays(5)
    rays = render_rays(field, origins, directions, sampler=DenseSampler(24))
    density, color = field.density_and_color(rays.samples.points)
    for ray in range(len(origins)):
        transmittance, total, opacity = 1.0, [0.0, 0.0, 0.0], 0.0
        for index in (rays.samples.rays == ray).nonzero()[:, 0].tolist():
            width = (rays.samples.ends[index].double() - rays.samples.starts[index].double()).item()
            alpha = 1 - math.exp(-density[index].double().item() * width)
            weight = transmittance * alpha
            total = [value + weight * color[index, axis].item() for axis, value in enumerate(total)]
            opacity += weight
            transmittance *= 1 - alpha
        assert rays.color[ray].tolist() == pytest.approx(total, abs=1e-5)
        assert rays.opacity[ray].item() == pytest.approx(opacity, abs=1e-5)


def test_skipping_empty_cells_changes_nothing_visible() -> None:
    field = Field(FieldConfig(encoding="dense", volume_resolution=24))
    cameras = random_cameras(3, torch.Generator().manual_seed(0))
    sampler = DenseSampler(48)
    full = render_cameras(field, cameras, 24, sampler=sampler)
    (full_gradient,) = torch.autograd.grad(full.images.square().mean(), field.encoding.levels[0])
    field.occupancy.update(field.density, 0.01, torch.Generator().manual_seed(0))
    masked = render_cameras(field, cameras, 24, sampler=sampler)
    (masked_gradient,) = torch.autograd.grad(masked.images.square().mean(), field.encoding.levels[0])
    assert len(masked.rays.weights) < 0.7 * len(full.rays.weights)
    torch.testing.assert_close(masked.images, full.images, atol=5e-3, rtol=0)
    assert (masked_gradient - full_gradient).norm() < 0.02 * full_gradient.norm()


def test_an_empty_field_shows_the_background() -> None:
    ball = UniformBall(0.0)
    ball.occupancy.occupied.zero_()
    result = render_images(ball, orbit_cameras(torch.zeros(1)), size=8, sampler=DenseSampler(8))
    assert (result.color == 1).all() and (result.opacity == 0).all() and (result.depth == 0).all()


def test_occupancy_grid_finds_a_ball_and_forgets_it() -> None:
    generator = torch.Generator().manual_seed(0)
    ball = UniformBall(50.0, radius=0.5)
    for _ in range(8):
        ball.occupancy.update(ball.density, 0.01, generator)
    axis = (torch.arange(16) + 0.5) / 8 - 1
    radius = torch.cartesian_prod(axis, axis, axis).norm(dim=-1).view(16, 16, 16)
    occupied = ball.occupancy.occupied
    assert occupied[radius < 0.55].all() and not occupied[radius > 0.9].any()
    along = torch.tensor([[0.1, 0.2, -0.3], [0.9, 0.9, 0.9]])
    assert ball.occupancy.occupied_along(torch.zeros(2, 3), along, torch.ones(2, 1)).tolist() == [[True], [False]]
    ball.value = 0.0
    for _ in range(80):
        ball.occupancy.update(ball.density, 0.01, generator)
    assert not ball.occupancy.occupied.any()


def test_sampler_keeps_the_middles_in_occupied_cells() -> None:
    """Against a look-up of each point, in a grid occupied at random."""
    generator = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(8)
    grid.occupied.copy_(torch.rand(8, 8, 8, generator=generator) > 0.5)
    origins = 2 * torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=-1)
    directions = torch.nn.functional.normalize(0.5 * torch.randn(50, 3, generator=generator) - origins, dim=-1)
    samples = DenseSampler(16)(origins, directions, grid, None)
    starts, ends = samples.bounds
    points = (origins[:, None] + directions[:, None] * ((starts + ends) / 2)[..., None]).view(-1, 3)
    cells = ((points + 1) * 4).long().clamp(0, 7)
    wanted = grid.occupied[tuple(cells.T)] & ((ends - starts).flatten() > 0)
    assert 0.3 < wanted.float().mean() < 0.7
    assert torch.equal(samples.slots, wanted.nonzero()[:, 0])
    torch.testing.assert_close(samples.points, points[wanted])
    assert torch.equal(samples.rays, samples.slots // 16)


def test_an_artifact_renders_deterministically_and_independently_of_chunks() -> None:
    config = FieldConfig(encoding="dense", volume_resolution=16)
    artifact = RadianceField(Field(config).state(), config.model_dump(), torch.zeros(1, 3, 8, 8), 0)
    cameras = orbit_cameras(torch.tensor([0.0, 120.0]))
    first = render_asset(artifact, cameras, size=20, samples_per_ray=32)
    field = load_representation(artifact)
    second = render_images(field, cameras, size=20, sampler=DenseSampler(32), chunk=77)
    assert first.color.shape == (2, 3, 20, 20) and first.opacity.shape == first.depth.shape == (2, 20, 20)
    torch.testing.assert_close(first.color, second.color, atol=1e-6, rtol=0)
    assert (first.color[:, :, 0, 0] > 0.95).all()
    assert 1.5 < first.depth[0, 10, 10] < 2.5
    blue = render_asset(artifact, cameras, size=20, samples_per_ray=32, background=torch.tensor([0.0, 0.0, 1.0]))
    assert (blue.color[:, 2] - blue.color[:, 0])[first.opacity < 0.01].min() > 0.9
    with pytest.raises(ValueError, match="background='green'"):
        render_asset(artifact, cameras, size=4, samples_per_ray=4, background="green")


def test_textureless_diffuse_shading_is_brightest_towards_the_light() -> None:
    field = Field(FieldConfig(encoding="dense", volume_resolution=32, blob_radius=0.6))
    light = torch.tensor([[0.0, 3.0, 0.0]])  # to the right of the front camera
    shading = Shading("textureless", light, ambient=0.2)
    camera = orbit_cameras(torch.zeros(1), elevation_deg=0.0)
    black = torch.zeros(1, 3)
    image = render_cameras(field, camera, 24, sampler=DenseSampler(48), shading=shading, background=black).images[0]
    torch.testing.assert_close(image[0], image[2])
    assert image[0, 12, 17] > image[0, 12, 7] + 0.2
    assert image[0, 12, 7].item() == pytest.approx(0.2, abs=0.05)


def test_sampler_switch_falls_back_to_dense_without_cuda(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(make_sampler(RenderConfig(), "cpu"), DenseSampler)
    assert not caplog.records
    assert isinstance(make_sampler(RenderConfig(sampler="occupancy"), "cpu"), DenseSampler)
    assert "sampling densely instead" in caplog.text


@pytest.mark.skipif(not nerfacc_cuda_available(), reason="needs nerfacc's CUDA code")
def test_nerfacc_sampling_agrees_with_dense_sampling() -> None:
    field = Field(FieldConfig(encoding="dense", volume_resolution=24), "cuda")
    field.occupancy.update(field.density, 1e-3, torch.Generator().manual_seed(0))
    cameras = random_cameras(3, torch.Generator().manual_seed(0)).to("cuda")
    dense = render_cameras(field, cameras, 24, sampler=DenseSampler(256)).images
    marched = render_cameras(field, cameras, 24, sampler=OccupancySampler(256)).images
    torch.testing.assert_close(marched, dense, atol=0.02, rtol=0)
