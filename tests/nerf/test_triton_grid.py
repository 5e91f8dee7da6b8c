"""The Triton hash grid against the loops and against the PyTorch one.

The tests of the kernels are marked `gpu` and run on CUDA. Where there is none, `test_kernels_in_the_interpreter` runs
the same tests on the CPU, in a process of its own: Triton decides by TRITON_INTERPRET, once, when it is imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.hash_grid import HashGrid
from tests.nerf.hash_grid_reference import SMALL, reference_hash_grid

if TYPE_CHECKING:
    from dreambooth3d.nerf.field.triton_grid import TritonGrid

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3}

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def kernels(test: Callable) -> Callable:
    """Mark a test that launches kernels."""
    runs = INTERPRETED or torch.cuda.is_available()
    skip = pytest.mark.skipif(not runs, reason="needs CUDA, or TRITON_INTERPRET=1")
    return pytest.mark.gpu(needs_triton(skip(test)))


def grids(config: FieldConfig = SMALL, dtype: torch.dtype = torch.float32) -> tuple[HashGrid, TritonGrid]:
    """A PyTorch and a Triton grid with the same random table."""
    from dreambooth3d.nerf.field.triton_grid import TritonGrid

    torch.manual_seed(0)
    reference = HashGrid(config)
    torch.nn.init.normal_(reference.grid["params"])
    fast = TritonGrid(config, dtype)
    fast.load_state_dict(reference.state_dict())
    return reference.to(DEVICE), fast.to(DEVICE)


def random_points(count: int) -> Tensor:
    """(count, 3) points in the cube, two of its corners first."""
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    points[:2] = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])[:count]
    return points.to(DEVICE)


def assert_near(value: Tensor, expected: Tensor, relative: float) -> None:
    """Every element differs by at most `relative` of the largest one."""
    assert value.shape == expected.shape and torch.isfinite(value).all()
    largest = expected.abs().max().item()
    assert largest > 0.1
    assert (value.float() - expected.float()).abs().max().item() <= relative * largest


@needs_triton
def test_kernels_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", __file__, "-m", "gpu", "--noconftest", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    result = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed and int(passed[1]) >= 15, result.stdout


@kernels
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_features_equal_a_python_loop(dtype: torch.dtype) -> None:
    _, fast = grids(dtype=dtype)
    points = random_points(40)
    expected = [reference_hash_grid(fast.grid["params"], SMALL, point) for point in points.tolist()]
    features = fast(points)
    assert features.dtype == dtype and features.is_contiguous()
    assert_near(features.cpu(), torch.tensor(expected), TOLERANCES[dtype])


@kernels
@pytest.mark.parametrize(
    ("features", "levels", "dtype"),
    [
        (1, 3, torch.float32),
        (2, 5, torch.float32),
        (2, 3, torch.float16),
        (4, 3, torch.float32),
        (8, 3, torch.float32),
        (8, 3, torch.float16),
    ],
)
def test_features_and_gradients_equal_those_of_torch(features: int, levels: int, dtype: torch.dtype) -> None:
    config = SMALL.model_copy(update={"features_per_level": features, "levels": levels})
    reference, fast = grids(config, dtype)
    assert {resolution**3 > size for _, resolution, size in reference.levels} == {False, True}
    results = []
    for grid in (reference, fast):
        points = random_points(257).requires_grad_()
        out = grid(points)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
        results.append([out, *torch.autograd.grad(out, (grid.grid["params"], points), upstream)])
    for value, expected in zip(results[1], results[0], strict=True):
        assert_near(value, expected, TOLERANCES[dtype])
    assert results[1][1].dtype == results[1][2].dtype == torch.float32


@kernels
@pytest.mark.parametrize(("levels", "log2_table_size"), [(1, 8), (4, 10), (6, 14)])
def test_other_shapes_of_the_grid(levels: int, log2_table_size: int) -> None:
    config = SMALL.model_copy(update={"levels": levels, "log2_table_size": log2_table_size, "level_scale": 1.4})
    reference, fast = grids(config)
    points = random_points(300)
    assert_near(fast(points), reference(points), TOLERANCES[torch.float32])


@kernels
@pytest.mark.parametrize("count", [1, 256])
def test_any_number_of_points(count: int) -> None:
    reference, fast = grids()
    points = random_points(count)
    assert_near(fast(points), reference(points), TOLERANCES[torch.float32])
    (gradient,) = torch.autograd.grad(fast(points).sum(), fast.grid["params"])
    # The weights of a point's corners sum to 1 in every level.
    assert gradient.sum().item() == pytest.approx(count * fast.output_dim, rel=1e-4)


@kernels
def test_no_points() -> None:
    _, fast = grids()
    points = torch.zeros(0, 3, device=DEVICE, requires_grad=True)
    features = fast(points)
    table_gradient, point_gradient = torch.autograd.grad(features.sum(), (fast.grid["params"], points))
    assert features.shape == (0, fast.output_dim) and point_gradient.shape == (0, 3)
    assert table_gradient.shape == fast.grid["params"].shape and not table_gradient.any()


@kernels
def test_only_the_gradients_that_are_needed() -> None:
    _, fast = grids()
    points = random_points(5)
    fast(points).sum().backward()
    assert points.grad is None and fast.grid["params"].grad.abs().sum() > 0
    fast.requires_grad_(False).zero_grad()
    points.requires_grad_()
    fast(points).sum().backward()
    assert points.grad.abs().sum() > 0 and fast.grid["params"].grad is None


@kernels
def test_points_with_strides_and_expanded_gradients() -> None:
    reference, fast = grids()
    wide = torch.cat([random_points(30), random_points(30)], dim=1)
    for grid in (reference, fast):
        grid(wide[:, 1:4]).mean().backward()
    gradients = [grid.grid["params"].grad * 1e3 for grid in (fast, reference)]
    assert_near(*gradients, TOLERANCES[torch.float32])


@kernels
def test_points_that_are_nan_or_outside_harm_no_others() -> None:
    reference, fast = grids()
    points = random_points(20)
    good = fast.encode(points)
    spoilt = points.clone()
    spoilt[3], spoilt[4, 1], spoilt[5] = torch.nan, torch.inf, 1e9
    features = fast.encode(spoilt)
    assert features[3].isnan().all() and features[4].isnan().all()
    others = [row for row in range(20) if row not in (3, 4, 5)]
    assert torch.equal(features[others], good[others])
    (gradient,) = torch.autograd.grad(features[others].sum(), fast.grid["params"])
    assert gradient.shape == reference.grid["params"].shape


@kernels
def test_same_parameters_as_torch() -> None:
    from dreambooth3d.nerf.field.triton_grid import TritonGrid

    states = []
    for kind in (HashGrid, TritonGrid):
        torch.manual_seed(3)
        states.append(kind(SMALL).state_dict())
    assert list(states[0]) == list(states[1]) == ["grid.params"]
    assert torch.equal(states[0]["grid.params"], states[1]["grid.params"])


@kernels
def test_unsupported_settings_are_one_sentence() -> None:
    from dreambooth3d.nerf.field.triton_grid import TritonGrid

    with pytest.raises(ConfigError, match="features_per_level=3: Triton's hash grid takes 1, 2, 4 or 8"):
        TritonGrid(SMALL.model_copy(update={"features_per_level": 3}))
    with pytest.raises(ConfigError, match="dtype=torch.bfloat16"):
        TritonGrid(SMALL, torch.bfloat16)


@pytest.mark.gpu
@needs_triton
@needs_cuda
def test_a_step_can_be_captured_in_a_cuda_graph() -> None:
    reference, fast = grids()
    table, points = fast.grid["params"], torch.zeros(300, 3, device="cuda", requires_grad=True)

    def step() -> tuple[Tensor, ...]:
        features = fast(points)
        return features, *torch.autograd.grad(features.square().sum(), (table, points))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for shift in (0.0, 0.3):
        with torch.no_grad():
            points.copy_(random_points(300) * 0.5 + shift)
        graph.replay()
        leaf = points.detach().clone().requires_grad_()
        features = reference(leaf)
        expected = features, *torch.autograd.grad(features.square().sum(), (reference.grid["params"], leaf))
        for value, wanted in zip(captured, expected, strict=True):
            assert_near(value, wanted, TOLERANCES[torch.float32])
