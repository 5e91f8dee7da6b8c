"""Faster calls of frozen networks: kernels fused by a compiler, and launched by one CUDA graph instead of singly."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from dreambooth3d.errors import gist

WARM_UP_CALLS = 3
COMPILATIONS = 256
Capture = TypeVar("Capture")
logger = logging.getLogger(__name__)


@contextmanager
def whole_capture(pool: tuple[int, int]) -> Iterator[None]:
    """Leave things as they were if a capture into the pool breaks off.

    PyTorch then stays on the capture's stream, and its allocator believes in a capture that never ends, for which it
    keeps all memory that several streams have used.
    """
    before = torch.cuda.current_stream()
    try:
        yield
    except Exception:
        torch.cuda.set_stream(before)
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(before.device_index, pool)
        raise


def warm_up(call: Callable[[], object]) -> None:
    """Call on a stream of its own, as PyTorch asks for before a capture: first set-up must not be captured.

    The memory that it took is given back, since the capture takes its own.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.empty_cache()


@dataclass
class _Captured:
    """A captured call: replaying `graph` computes `output` from what lies in `inputs`."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class _Graphed(ABC, Generic[Capture]):
    """What the two kinds of graphs share: one capture per combination of input shapes, and the plain function."""

    def __init__(self, function: Callable[..., Tensor], name: str, compiles: bool = False) -> None:
        self.function, self.name, self.compiles = function, name, compiles
        self._captured: dict[tuple[object, ...], Capture | None] = {}
        self._fails = False

    def _capture_once(self, inputs: tuple[Tensor, ...]) -> Capture | None:
        """The capture for inputs like these; None if there can be none."""
        key = tuple((each.shape, each.dtype) for each in inputs)
        if key not in self._captured:
            self._captured[key] = self._try_to_capture(inputs)
        return self._captured[key]

    def _try_to_capture(self, inputs: tuple[Tensor, ...]) -> Capture | None:
        forms = [self.function]
        if self.compiles:
            forms.insert(0, torch.compile(self.function, dynamic=False))
        started = time.monotonic()
        for form in forms:
            compiled = form is not self.function
            try:
                # Every model that a process loads counts as a recompilation.
                with torch._dynamo.config.patch(recompile_limit=COMPILATIONS):
                    captured = self._capture(form, inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler's failure can be of any type
                what = "without the compiler" if compiled else "without a CUDA graph"
                logger.warning("%s runs %s (%s: %s)", self.name, what, type(error).__name__, gist(error))
            else:
                if compiled:
                    logger.info("%s was compiled in %.0f s", self.name, time.monotonic() - started)
                return captured
        self._fails = True
        return None

    @abstractmethod
    def _capture(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Capture:
        """The capture of one form of the function."""


class GraphedFunction(_Graphed[_Captured]):
    """A function of tensors without gradient, captured once per combination of input shapes.

    On another device than CUDA, and where the capture fails, the function is called as it is.

    Args:
        function: tensors on one device to one tensor; always the same kernels for the same shapes, and nothing in it
            waits for the device.
        name: for the log.
        compiles: fuse its kernels by `torch.compile` before they are captured; where that fails they are as they were.
    """

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value."""
        if self._fails or not all(each.is_cuda for each in inputs):
            return self.function(*inputs)
        captured = self._capture_once(inputs)
        if captured is None:
            return self.function(*inputs)
        for target, source in zip(captured.inputs, inputs, strict=True):
            target.copy_(source)
        captured.graph.replay()
        return captured.output.clone()

    def _capture(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> _Captured:
        static = tuple(each.detach().clone() for each in inputs)
        warm_up(lambda: function(*static))
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        with whole_capture(pool), torch.cuda.graph(graph, pool=pool):
            output = function(*static)
        return _Captured(graph, static, output)


class DifferentiableGraph(_Graphed[Callable[[Tensor], Tensor]]):
    """A function of one image batch whose parameters are frozen, captured with its backward pass once per input shape.

    Falls back like `GraphedFunction`, and where no gradient is asked for.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """The function's value, differentiable in the images."""
        if self._fails or not images.is_cuda or not images.requires_grad or not torch.is_grad_enabled():
            return self.function(images)
        captured = self._capture_once((images,))
        return self.function(images) if captured is None else captured(images)

    def _capture(self, function: Callable[[Tensor], Tensor], inputs: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        sample = inputs[0].detach().clone().requires_grad_()
        pool = torch.cuda.graph_pool_handle()
        with whole_capture(pool):
            # Through a lambda: of a module PyTorch would replace the forward pass itself.
            graphed = torch.cuda.make_graphed_callables(lambda images: function(images), (sample,), pool=pool)
        return cast("Callable[[Tensor], Tensor]", graphed)
