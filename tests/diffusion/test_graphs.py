"""CUDA graphs: the same values and gradients as without, and the plain function where there can be none."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dreambooth3d.artifacts import BaseModelRef
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.model.graphs import DifferentiableGraph, GraphedFunction

CPU_AND_GPU = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FORGIVING = {"cpu": {"atol": 0.0, "rtol": 0.0}, "cuda": {"atol": 1e-5, "rtol": 1e-4}}


def network(device: str) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1))
    return layers.to(device).requires_grad_(False)


def images(count: int, size: int, device: str, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_values_are_those_of_the_function(device: str) -> None:
    """Several shapes, each twice with other values: a result must not be overwritten by the next call."""
    layers = network(device)

    def function(image: Tensor, scale: Tensor) -> Tensor:
        return layers(image) * scale

    graphed = GraphedFunction(function, "the network")
    results = []
    for seed, (count, size) in enumerate([(2, 16), (3, 16), (2, 8), (2, 16), (3, 16)]):
        inputs = images(count, size, device, seed), torch.tensor(float(seed + 1), device=device)
        results.append((graphed(*inputs), function(*inputs)))
    for found, expected in results:
        torch.testing.assert_close(found, expected, **FORGIVING[device])
        assert not found.requires_grad


@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_gradients_are_those_of_the_function(device: str) -> None:
    layers = network(device)
    graphed = DifferentiableGraph(layers, "the network")
    for seed, (count, size) in enumerate([(2, 16), (1, 16), (2, 16)]):
        ours, plain = (images(count, size, device, seed).requires_grad_() for _ in range(2))
        found, expected = graphed(ours), layers(plain)
        torch.testing.assert_close(found, expected, **FORGIVING[device])
        weight = images(count, 7, device, seed + 9).mean()
        (weight * found.square()).sum().backward()
        (weight * expected.square()).sum().backward()
        torch.testing.assert_close(ours.grad, plain.grad, **FORGIVING[device])
        assert plain.grad.abs().max() > 0


@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_without_gradient_a_differentiable_graph_is_the_plain_function(device: str) -> None:
    layers = network(device)
    graphed, batch = DifferentiableGraph(layers, "the network"), images(2, 16, device)
    assert not graphed(batch).requires_grad
    with torch.no_grad():
        found = graphed(batch.clone().requires_grad_())
    assert torch.equal(found, layers(batch)) and not found.requires_grad
    assert graphed._captured == {}, "nothing is captured for it"


def test_nothing_is_captured_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    layers = network("cpu")
    functions: list[Callable[..., Tensor]] = [GraphedFunction(layers, "one"), DifferentiableGraph(layers, "other")]
    with caplog.at_level(logging.INFO):
        for function in functions:
            function(images(1, 8, "cpu").requires_grad_())
    assert all(function._captured == {} for function in functions) and caplog.records == []


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [GraphedFunction, DifferentiableGraph])
def test_a_failing_capture_falls_back_with_one_line(
    kind: type[GraphedFunction] | type[DifferentiableGraph], caplog: pytest.LogCaptureFixture
) -> None:
    """A function that waits for the device cannot be captured."""
    layers = network("cuda")

    def waiting(image: Tensor) -> Tensor:
        return layers(image) * image.sum().item()

    graphed = kind(waiting, "the network")
    with caplog.at_level(logging.INFO):
        for seed in range(3):
            batch = images(2, 16, "cuda", seed).requires_grad_()
            torch.testing.assert_close(graphed(batch), waiting(batch), atol=1e-3, rtol=1e-4)
    assert [record.message.startswith("the network runs without a CUDA graph") for record in caplog.records] == [True]


def test_components_compute_the_same_with_acceleration(components: Components) -> None:
    """On a CPU the switch changes nothing."""
    pictures = images(2, 64, "cpu").requires_grad_()
    prompts = components.encode_prompts(["a photo of a dog", "a cat"])
    timestep = torch.tensor([100, 700])

    def outcome() -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        latents = components.encode_images(pictures)
        noise = components.predict_noise(latents.detach(), timestep, prompts)
        (gradient,) = torch.autograd.grad(latents.square().sum(), pictures)
        return latents.detach(), noise, gradient

    plain = outcome()
    components.accelerate("compile")
    try:
        graphed = outcome()
    finally:
        components.accelerate("none")
    for expected, found in zip(plain, graphed, strict=True):
        assert torch.equal(found, expected)


def test_components_are_freed_at_once(base: BaseModelRef) -> None:
    """Without a garbage collection: the next stage's model needs the memory."""
    components = load_components(base, "cpu", acceleration="compile")
    components.encode_images(images(1, 64, "cpu"))
    unet = weakref.ref(components.unet)
    gc.disable()
    try:
        del components
        assert unet() is None
    finally:
        gc.enable()
