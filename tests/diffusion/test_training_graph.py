"""Forward and backward pass as one CUDA graph: the same losses and gradients as plain calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from dreambooth3d.artifacts import BaseModelRef, SubjectPhotos
from dreambooth3d.config.base import Acceleration
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.finetuning.training_graph import TrainingGraph
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.runtime import Runtime

CPU_AND_GPU = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ON_GPU = [pytest.param(kind, marks=pytest.mark.gpu) for kind in ("graphs", "compile")]
MakeRuntime = Callable[..., Runtime]


def network(device: str) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3)).to(device)


def loss_of(layers: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def function(inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        errors = (layers(inputs) - target).square().mean(dim=1)
        return errors.sum(), errors

    return function


def batch(device: str, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 6, generator=generator).to(device), torch.randn(5, 3, generator=generator).to(device)


@pytest.mark.parametrize("acceleration", ["graphs", "compile", "none"])
@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_steps_of_an_optimizer_are_those_of_plain_calls(device: str, acceleration: Acceleration) -> None:
    """Weights change between calls, and the graph must see them; the trajectory of six steps is the plain one's."""
    ours, plain = network(device), network(device)
    graph = TrainingGraph(loss_of(ours), Tensor.backward, list(ours.parameters()), acceleration)
    optimizers = [torch.optim.AdamW(layers.parameters(), lr=0.05, fused=True) for layers in (ours, plain)]
    for step in range(6):
        inputs = batch(device, step)
        loss, errors = graph(*inputs)
        expected, expected_errors = loss_of(plain)(*inputs)
        expected.backward()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(errors, expected_errors.detach(), rtol=1e-4, atol=1e-5)
        for found, wanted in zip(ours.parameters(), plain.parameters(), strict=True):
            assert wanted.grad.abs().max() > 0
            torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-3, atol=1e-5)
        for optimizer in optimizers:
            optimizer.step()
        optimizers[1].zero_grad()
        if not graph.keeps_gradients:
            optimizers[0].zero_grad()
    assert graph.keeps_gradients is (device == "cuda" and acceleration != "none")
    assert not loss.requires_grad


def test_gradients_add_up_without_a_graph() -> None:
    layers = network("cpu")
    graph = TrainingGraph(loss_of(layers), Tensor.backward, list(layers.parameters()), "none")
    graph(*batch("cpu", 0))
    first = [parameter.grad.clone() for parameter in layers.parameters()]
    graph(*batch("cpu", 0))
    for once, parameter in zip(first, layers.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * once)


def test_a_failed_capture_leaves_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain call after it adds to what is there."""
    layers = network("cpu")
    graph = TrainingGraph(loss_of(layers), Tensor.backward, list(layers.parameters()), "graphs")

    def breaks_off(self: TrainingGraph, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> None:
        self._run(function, inputs)
        raise RuntimeError("capture failed")

    monkeypatch.setattr(TrainingGraph, "_capture_form", breaks_off)
    graph._capture(batch("cpu", 0))
    assert graph.acceleration == "none" and all(parameter.grad is None for parameter in layers.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("acceleration", ["graphs", "compile"])
def test_what_cannot_be_captured_is_called_plainly(
    acceleration: Acceleration, caplog: pytest.LogCaptureFixture
) -> None:
    layers = network("cuda")

    def waits(inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss, errors = loss_of(layers)(inputs, target)
        return loss * float(errors.detach().sum().item() > 0), errors

    graph = TrainingGraph(waits, Tensor.backward, list(layers.parameters()), acceleration)
    with caplog.at_level(logging.WARNING):
        for seed in range(2):
            loss, _ = graph(*batch("cuda", seed))
            torch.testing.assert_close(loss, loss_of(layers)(*batch("cuda", seed))[0].detach())
    assert graph.acceleration == "none" and not graph.keeps_gradients
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dreambooth3d")]
    assert ours[-1].startswith("training runs without the CUDA graph")
    assert len(ours) == (2 if acceleration == "compile" else 1)


@pytest.mark.parametrize("acceleration", ON_GPU)
def test_a_released_graph_gives_its_memory_back(acceleration: Acceleration) -> None:
    layers = network("cuda")
    graph = TrainingGraph(loss_of(layers), Tensor.backward, list(layers.parameters()), acceleration)
    graph(*batch("cuda", 0))
    graph.release()
    assert all(parameter.grad is None for parameter in layers.parameters()) and not graph.keeps_gradients


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("acceleration", ON_GPU)
def test_finetuning_learns_the_same(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, acceleration: Acceleration, precision: str
) -> None:
    """Twelve steps of DreamBooth with a checkpoint and its samples in between."""
    weights = {}
    for kind in ("none", acceleration):
        config = FinetuneConfig(
            steps=12, checkpoint_every=6, batch_size=2, class_images=4, class_inference_steps=2, learning_rate=1e-4,
            sample_inference_steps=2, mixed_precision=precision, acceleration=kind,
        )  # fmt: skip
        runtime = make_runtime(folder=kind, device=torch.device("cuda"))
        last = finetune(photos, base, config, 0, runtime).checkpoints[12]
        weights[kind] = load_components(base, "cpu", last).unet.state_dict()
    start = load_components(base, "cpu").unet.state_dict()
    moved = sum((weights["none"][name] - start[name]).square().sum() for name in start).sqrt()
    apart = sum((weights["none"][name] - weights[acceleration][name]).square().sum() for name in start).sqrt()
    assert moved > 0 and apart < (0.02 if precision == "no" else 0.2) * moved
