"""Encodings against slow readable references."""

import math

import pytest
import torch
from torch import Tensor

from dreambooth3d.config import FieldConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.encodings import VOLUME_GAIN, DenseVolume, HashGrid, make_encoding, tcnn_available

SMALL = FieldConfig(levels=5, log2_table_size=9, base_resolution=4, level_scale=1.7, volume_resolution=12)


def reference_hash_grid(grid: HashGrid, config: FieldConfig, point: list[float]) -> list[float]:
    """Features of one point by loops over levels, corners and features, in Python numbers."""
    table = grid.grid["params"].tolist()
    features, offset, count = [], 0, config.features_per_level
    for level in range(config.levels):
        scale = config.base_resolution * config.level_scale**level - 1
        resolution = math.ceil(scale) + 1
        size = min(8 * math.ceil(resolution**3 / 8), 2**config.log2_table_size)
        position = [(value + 1) / 2 * scale + 0.5 for value in point]
        cell = [math.floor(value) for value in position]
        total = [0.0] * count
        for corner in range(8):
            bits = [(corner >> axis) & 1 for axis in range(3)]
            vertex = [cell[axis] + bits[axis] for axis in range(3)]
            weight = 1.0
            for axis in range(3):
                part = position[axis] - cell[axis]
                weight *= part if bits[axis] else 1 - part
            if resolution**3 <= size:
                row = (vertex[0] + vertex[1] * resolution + vertex[2] * resolution**2) % size
            else:
                row = (vertex[0] ^ (vertex[1] * 2654435761) ^ (vertex[2] * 805459861)) % 2**32 % size
            for feature in range(count):
                total[feature] += weight * table[(offset + row) * count + feature]
        features += total
        offset += size
    return features


@pytest.fixture
def points() -> Tensor:
    return torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def random_grid() -> HashGrid:
    torch.manual_seed(0)
    grid = HashGrid(SMALL)
    torch.nn.init.normal_(grid.grid["params"])
    return grid


def test_hash_grid_equals_a_python_loop(points: Tensor) -> None:
    grid = random_grid()
    expected = torch.tensor([reference_hash_grid(grid, SMALL, point) for point in points.tolist()])
    torch.testing.assert_close(grid(points), expected, atol=2e-5, rtol=1e-4)


def test_some_levels_are_hashed_and_some_are_not() -> None:
    dense = [resolution**3 <= size for _, resolution, size in HashGrid(SMALL).levels]
    assert any(dense) and not all(dense)


def test_hash_grid_gradients_equal_finite_differences(points: Tensor) -> None:
    grid = random_grid().double()
    inputs = points[:3].double().requires_grad_()
    assert torch.autograd.gradcheck(grid, inputs, eps=1e-7, atol=1e-4)
    direction = torch.randn_like(grid.grid["params"])
    (gradient,) = torch.autograd.grad(grid(inputs).square().sum(), grid.grid["params"])
    step, sums = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            grid.grid["params"] += sign * step * direction
            sums.append(grid(inputs).square().sum().item())
            grid.grid["params"] -= sign * step * direction
    assert (gradient * direction).sum().item() == pytest.approx((sums[0] - sums[1]) / (2 * step), rel=1e-5)


def test_dense_volume_reproduces_a_linear_function(points: Tensor) -> None:
    volume = DenseVolume(SMALL)
    slope = torch.tensor([0.3, -0.7, 1.1])
    volume.add_density(lambda places: places @ slope + 0.2)
    torch.testing.assert_close(volume(points)[:, 0], points @ slope + 0.2, atol=1e-5, rtol=1e-5)
    assert volume(points)[:, 1:].abs().max() == 0


def test_dense_volume_has_x_last() -> None:
    volume = DenseVolume(SMALL)
    with torch.no_grad():
        volume.levels[-1][0, 2, 0, 0, -1] = 1.0  # z and y lowest, x highest
    value = volume(torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]))
    torch.testing.assert_close(value[:, 2], torch.tensor([VOLUME_GAIN, 0.0]))
    torch.testing.assert_close(volume(torch.zeros(1, 3), channels=1), torch.zeros(1, 1))


def test_switch() -> None:
    assert isinstance(make_encoding(SMALL.model_copy(update={"encoding": "dense"})), DenseVolume)
    assert isinstance(make_encoding(SMALL.model_copy(update={"encoding": "torch"})), HashGrid)
    assert isinstance(make_encoding(SMALL, "cpu"), HashGrid)


@pytest.mark.skipif(tcnn_available(), reason="tiny-cuda-nn is here")
def test_missing_tcnn_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="tiny-cuda-nn or CUDA is missing"):
        make_encoding(SMALL.model_copy(update={"encoding": "tcnn"}))


@pytest.mark.skipif(not tcnn_available(), reason="needs CUDA and tiny-cuda-nn")
def test_tcnn_equals_torch(points: Tensor) -> None:
    torch_grid = random_grid().cuda()
    tcnn_grid = make_encoding(SMALL.model_copy(update={"encoding": "tcnn"}), "cuda")
    tcnn_grid.load_state_dict(torch_grid.state_dict())
    torch.testing.assert_close(tcnn_grid(points.cuda()), torch_grid(points.cuda()), atol=1e-3, rtol=1e-3)
