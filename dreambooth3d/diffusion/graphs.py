"""CUDA graphs: a network of many small kernels is launched by one call instead of hundreds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP_CALLS = 3
logger = logging.getLogger(__name__)


@dataclass
class _Captured:
    """A captured call: replaying `graph` computes `output` from what lies in `inputs`."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class GraphedFunction:
    """A function of tensors without gradient, captured once per combination of input shapes.

    On another device than CUDA, and where the capture fails, the function is called as it is.

    Args:
        function: tensors on one device to one tensor; always the same kernels for the same shapes, and nothing in it
            waits for the device.
        name: for the log.
    """

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        self.function, self.name = function, name
        self._captured: dict[tuple, _Captured] = {}
        self._fails = False

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value."""
        if self._fails or not all(each.is_cuda for each in inputs):
            return self.function(*inputs)
        key = tuple((each.shape, each.dtype) for each in inputs)
        if key not in self._captured:
            try:
                self._captured[key] = self._capture(inputs)
            except RuntimeError as error:
                self._fails = True
                _log_fallback(self.name, error)
                return self.function(*inputs)
        captured = self._captured[key]
        for target, source in zip(captured.inputs, inputs, strict=True):
            target.copy_(source)
        captured.graph.replay()
        return captured.output.clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        static = tuple(each.detach().clone() for each in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                self.function(*static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.function(*static)
        return _Captured(graph, static, output)


class DifferentiableGraph:
    """A function of one image batch whose parameters are frozen, captured with its backward pass once per input shape.

    Falls back like `GraphedFunction`, and where no gradient is asked for.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        self.function, self.name = function, name
        self._captured: dict[torch.Size, Callable[[Tensor], Tensor]] = {}
        self._fails = False

    def __call__(self, images: Tensor) -> Tensor:
        """The function's value, differentiable in the images."""
        if self._fails or not images.is_cuda or not images.requires_grad or not torch.is_grad_enabled():
            return self.function(images)
        if images.shape not in self._captured:
            sample = images.detach().clone().requires_grad_()
            try:
                # Through a method: of a module PyTorch would replace the forward pass itself.
                self._captured[images.shape] = torch.cuda.make_graphed_callables(self._call, (sample,))
            except RuntimeError as error:
                self._fails = True
                _log_fallback(self.name, error)
                return self.function(images)
        return self._captured[images.shape](images)

    def _call(self, images: Tensor) -> Tensor:
        return self.function(images)


def _log_fallback(name: str, error: RuntimeError) -> None:
    logger.info("%s runs without a CUDA graph (%s)", name, str(error).splitlines()[0])
