"""Regularisers against loops and known values."""

import math

import numpy as np
import pytest
import torch

from dreambooth3d.cameras import random_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import ShadingConfig
from dreambooth3d.nerf.field import regularizers
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.rendering.sampling import DenseSampler, Samples
from dreambooth3d.nerf.rendering.volume import render_rays
from dreambooth3d.nerf.training import losses
from dreambooth3d.representation.shading import Shading, draw_shading, random_lights


def test_sparsity_and_entropy_have_known_values() -> None:
    opacity = torch.tensor([0.0, 0.5])
    assert losses.sparsity(opacity).item() == pytest.approx((0.1 + math.sqrt(0.26)) / 2)
    assert losses.opacity_entropy(torch.tensor([0.5])).item() == pytest.approx(math.log(2), abs=1e-6)
    assert losses.opacity_entropy(torch.tensor([0.0, 1.0])).item() < 0.01


def test_distortion_equals_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    rays = torch.tensor([0, 0, 0, 0, 2, 2, 2, 3])
    starts = torch.cat([torch.arange(4.0), torch.arange(3.0) * 0.5 + 1, torch.tensor([2.0])]) * 0.3 + 1
    ends = starts + 0.1
    weights = torch.rand(8, generator=generator)
    samples = Samples(torch.zeros(8, 3), rays, starts, ends, 4, 4)
    total = 0.0
    for i in range(8):
        total += weights[i].item() ** 2 * 0.05 / 3
        for j in range(8):
            if rays[i] == rays[j]:
                distance = abs(starts[i].item() + ends[i].item() - starts[j].item() - ends[j].item()) / 4
                total += weights[i].item() * weights[j].item() * distance
    assert regularizers.distortion(samples, weights).item() == pytest.approx(total / 4, rel=1e-4)


def test_orientation_punishes_only_normals_that_face_away() -> None:
    field = Field(FieldConfig(encoding="dense", volume_resolution=24))
    origins, directions = (x.reshape(-1, 3) for x in random_cameras(1, torch.Generator().manual_seed(0)).rays(16, 16))
    rays = render_rays(field, origins, directions, sampler=DenseSampler(48), with_normals=True)
    loss = regularizers.orientation(rays, directions).item()
    total = 0.0
    for weight, normal, ray in zip(rays.weights.tolist(), rays.normals, rays.samples.rays.tolist(), strict=True):
        total += weight * max(0.0, (normal * directions[ray]).sum().item()) ** 2
    assert loss == pytest.approx(total / len(origins), rel=1e-3)
    assert regularizers.orientation(rays, -directions).item() > 10 * loss


def test_total_variation_of_a_ramp() -> None:
    ramp = torch.arange(5.0).view(1, 1, 1, 1, 5).expand(1, 2, 5, 5, 5) * 3
    assert regularizers.total_variation(ramp).item() == pytest.approx(9.0)
    assert regularizers.total_variation(torch.ones(1, 4, 3, 3, 3)).item() == 0


@pytest.mark.parametrize("encoding", ["dense", "hash_grid"])
def test_smoothness_prefers_the_smooth_field(encoding: str) -> None:
    torch.manual_seed(0)
    values = []
    for noise in (0.0, 10.0):
        field = Field(FieldConfig(encoding=encoding, volume_resolution=16, levels=4, log2_table_size=10))
        with torch.no_grad():
            for parameter in field.encoding.parameters():
                parameter += noise * torch.randn_like(parameter)
        loss = regularizers.smoothness(field, torch.Generator().manual_seed(0))
        loss.backward()
        values.append(loss.item())
    assert values[1] > 2 * values[0]


def test_sampled_variation_estimates_the_mean_over_the_cube() -> None:
    """Against squared differences of the logits at all points of a fine grid."""
    torch.manual_seed(0)
    field = Field(FieldConfig(implementation="torch", levels=3, base_resolution=4, log2_table_size=12))
    with torch.no_grad():
        for parameter in field.encoding.parameters():
            parameter += torch.randn_like(parameter)
        axis = (torch.arange(40) + 0.5) / 20 - 1
        points = torch.cartesian_prod(axis, axis, axis)
        width = 2 / (4 * 1.5**2 - 1)
        expected = sum(
            (field.logits(points + width * move) - field.logits(points)).square().mean() for move in torch.eye(3)
        )
        estimate = regularizers.sampled_variation(field, torch.Generator().manual_seed(0))
    assert estimate.item() == pytest.approx(expected.item(), rel=0.03)


def test_silhouette_is_the_entropy_of_trusted_rays() -> None:
    opacity, mask = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([1.0, 0.0, 1.0])
    value = losses.silhouette(opacity, mask, torch.tensor([1.0, 1.0, 0.0])).item()
    assert value == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2, rel=1e-5)
    assert losses.silhouette(opacity, mask, torch.zeros(3)).item() == 0


def test_reconstruction_is_blind_to_a_shifted_background() -> None:
    color, opacity = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.2, 0.1]]), torch.tensor([0.0, 1.0])
    for shade in (0.2, 0.9):
        background = torch.full((2, 3), shade)
        target = torch.stack([background[0], torch.tensor([0.3, 0.2, 0.1])])
        assert losses.reconstruction(color, opacity, target, background).item() == 0
        assert losses.reconstruction(color, opacity, target + 0.05, background).item() == pytest.approx(0.5 * 0.05**2)


def test_lambert_shading_has_the_known_value() -> None:
    shading = Shading("diffuse", torch.tensor([[0.0, 0.0, 2.0]]), ambient=0.4)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, math.sqrt(0.5), math.sqrt(0.5)]])
    albedo = torch.full((3, 3), 0.5)
    shaded = shading.shade(albedo, normals, torch.zeros(3, 3), torch.zeros(3, dtype=torch.long))
    expected = [0.5, 0.2, 0.5 * (0.4 + 0.6 * math.sqrt(0.5))]
    torch.testing.assert_close(shaded[:, 0], torch.tensor(expected))


def test_shading_schedule() -> None:
    generator = torch.Generator().manual_seed(0)
    cameras = random_cameras(4, generator)
    config = ShadingConfig(albedo_only_share=0.5, diffuse_probability=0.5)
    assert all(draw_shading(config, 0.4, cameras, generator).mode == "albedo" for _ in range(20))
    modes = [draw_shading(config, 0.6, cameras, generator).mode for _ in range(800)]
    assert modes.count("albedo") / 800 == pytest.approx(0.5, abs=0.06)
    assert modes.count("diffuse") / 800 == pytest.approx(0.25, abs=0.05)
    assert modes.count("textureless") / 800 == pytest.approx(0.25, abs=0.05)
    assert random_lights(cameras, generator).norm(dim=-1).min() > 1.0


def test_what_is_not_known_does_not_count_in_the_reconstruction() -> None:
    generator = torch.Generator().manual_seed(0)
    color, target, background = (torch.rand(40, 3, generator=generator) for _ in range(3))
    opacity, known = torch.rand(40, generator=generator), (torch.arange(40) < 25).float()
    some = losses.reconstruction(color, opacity, target, background, known)
    first = losses.reconstruction(color[:25], opacity[:25], target[:25], background[:25])
    torch.testing.assert_close(some, first)
    torch.testing.assert_close(
        losses.reconstruction(color, opacity, target, background, torch.ones(40)),
        losses.reconstruction(color, opacity, target, background),
    )


def test_depth_variance_equals_the_weighted_variance_of_numpy() -> None:
    """Over rays that are more than half opaque; the thin ray, the third, counts as 0, an empty one too."""
    rays = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    starts = torch.tensor([1.0, 1.5, 2.0, 1.0, 3.0, 1.0, 2.0])
    weights = torch.tensor([0.2, 0.5, 0.2, 0.4, 0.4, 0.2, 0.2])
    samples = Samples(torch.zeros(7, 3), rays, starts, starts + 0.1, 4, 3)
    opacity = torch.tensor([0.9, 0.8, 0.4, 0.0])
    expected = 0.0
    for ray in (0, 1):
        middle, share = (starts[rays == ray] + 0.05).numpy(), weights[rays == ray].numpy()
        mean = np.average(middle, weights=share)
        expected += np.average((middle - mean) ** 2, weights=share) / 4
    assert regularizers.depth_variance(samples, weights, opacity).item() == pytest.approx(expected, rel=1e-4)


def test_the_share_of_ambient_light_is_drawn_evenly_from_its_range() -> None:
    """And costs no random number where there is one value, so that what is drawn after it stays."""
    cameras, generator = random_cameras(2, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    lit = ShadingConfig(albedo_only_share=0.0, diffuse_probability=1.0, ambient=(0.2, 0.8))
    drawn = [draw_shading(lit, 0.5, cameras, generator).ambient for _ in range(400)]
    assert 0.2 <= min(drawn) < 0.22 and 0.78 < max(drawn) <= 0.8 and np.mean(drawn) == pytest.approx(0.5, abs=0.03)
    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    fixed = ShadingConfig(albedo_only_share=0.0, diffuse_probability=1.0)
    assert draw_shading(fixed, 0.5, cameras, first).ambient == 0.6
    torch.rand(1, generator=second), random_lights(cameras, second)
    assert torch.equal(first.get_state(), second.get_state())
