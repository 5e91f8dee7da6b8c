"""Encodings against slow readable references."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.dense_volume import VOLUME_GAIN, DenseVolume
from dreambooth3d.nerf.field.encodings import make_encoding
from dreambooth3d.nerf.field.hash_grid import HashGrid, TcnnGrid
from tests.nerf.hash_grid_reference import SMALL, reference_hash_grid


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
    expected = torch.tensor([reference_hash_grid(grid.grid["params"], SMALL, point) for point in points.tolist()])
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


def with_implementation(implementation: str) -> FieldConfig:
    return SMALL.model_copy(update={"implementation": implementation})


def test_switch() -> None:
    assert isinstance(make_encoding(SMALL.model_copy(update={"encoding": "dense"})), DenseVolume)
    assert isinstance(make_encoding(with_implementation("torch")), HashGrid)
    assert isinstance(make_encoding(SMALL, "cpu"), HashGrid)


MODULES = {"tcnn": "tinycudann", "triton": "dreambooth3d.nerf.field.triton_grid"}
CAUSES = {"absent": "halted", "broken": "built for another card", "fails": "no kernel image"}


class StandIn(HashGrid):
    """What a fast implementation gives back in these tests, or raises when it is first called."""

    fails = False

    def forward(self, points: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError(f"{CAUSES['fails']}.\nAnd more.")
        return super().forward(points)


class BrokenImport:
    """A finder whose modules raise something else than ImportError when they are imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.name:
            raise OSError(CAUSES["broken"])


@pytest.fixture
def gpu_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that CUDA is here, with the given state of each library: works, absent, broken or fails."""

    def pretend(**states: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(nn.Module, "to", lambda self, device: self)
        for name, state in states.items():
            module = ModuleType(MODULES[name])
            grid = type(name, (StandIn,), {"fails": state == "fails"})
            module.TritonGrid, module.Encoding = grid, lambda dims, settings, dtype, grid=grid: grid(SMALL)
            monkeypatch.setitem(sys.modules, MODULES[name], None if state == "absent" else module)
            if state == "broken":
                monkeypatch.delitem(sys.modules, MODULES[name])
                monkeypatch.setattr(sys, "meta_path", [BrokenImport(MODULES[name]), *sys.meta_path])

    return pretend


@pytest.mark.parametrize("triton", ["works", *CAUSES])
@pytest.mark.parametrize("tcnn", ["works", *CAUSES])
def test_auto_takes_the_first_that_works_and_says_why(
    gpu_with: Callable[..., None], tcnn: str, triton: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpu_with(tcnn=tcnn, triton=triton)
    with caplog.at_level(logging.INFO, "dreambooth3d.nerf.field.encodings"):
        grid = make_encoding(SMALL, "cuda")
    assert grid(torch.zeros(2, 3)).shape == (2, 10)
    (record,) = caplog.records
    text = record.getMessage()
    if triton == "works":
        assert type(grid).__name__ == "triton" and text == "hash grid by triton (the first choice on CUDA)"
        return
    assert isinstance(grid, TcnnGrid) is (tcnn == "works")
    assert text.startswith(f"hash grid by {'tcnn' if tcnn == 'works' else 'torch'} (triton: ")
    assert CAUSES[triton] in text and "And more" not in text
    assert tcnn == "works" or f"tcnn: {CAUSES[tcnn]}" in text or (tcnn == "absent" and "; tcnn: " in text)
    assert record.levelno == (logging.INFO if (tcnn, triton) == ("works", "absent") else logging.WARNING)


@pytest.mark.parametrize("state", CAUSES)
@pytest.mark.parametrize("name", MODULES)
def test_what_was_asked_for_and_cannot_be_used_is_one_sentence(
    gpu_with: Callable[..., None], name: str, state: str
) -> None:
    gpu_with(**{name: state})
    expected = rf"^field\.implementation={name} cannot be used here: .*{CAUSES[state]}.*, or set .*=auto\.$"
    with pytest.raises(ConfigError, match=expected):
        make_encoding(with_implementation(name), "cuda")


@pytest.mark.parametrize("name", MODULES)
def test_a_gpu_implementation_on_a_cpu_is_one_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match=f"field.implementation={name} cannot be used here: it needs a CUDA device"):
        make_encoding(with_implementation(name), "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["tcnn", "triton", "auto"])
def test_every_implementation_equals_torch(points: Tensor, name: str) -> None:
    torch_grid = random_grid().cuda()
    try:
        grid = make_encoding(with_implementation(name), "cuda")
    except ConfigError as error:
        pytest.skip(str(error))
    grid.load_state_dict(torch_grid.state_dict())
    torch.testing.assert_close(grid(points.cuda()), torch_grid(points.cuda()), atol=1e-3, rtol=1e-3)
