"""A training step's forward and backward pass, fused by a compiler and launched as one CUDA graph."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dreambooth3d.config.base import Acceleration
from dreambooth3d.diffusion.model.graphs import COMPILATIONS, warm_up, whole_capture
from dreambooth3d.errors import gist

logger = logging.getLogger(__name__)


class TrainingGraph:
    """Computes a loss and its gradients, as one CUDA graph where that is wanted and possible.

    After a call the gradients lie in the parameters' `.grad`. The graph overwrites what is there, in memory of its own,
    so that nobody may set them to None (`keeps_gradients` says whether that holds); without a graph they are added, as
    `backward(loss)` does.

    Args:
        function: tensors to (loss, further outputs...); the same kernels at each call, and nothing in it waits for the
            device.
        backward: scales the loss where precision asks for it, and calls its backward pass.
        parameters: all that take gradients.
        acceleration: `compile`, `graphs` or `none`; on CUDA only. Where one fails the next simpler is used, with one
            line in the log.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        backward: Callable[[Tensor], None],
        parameters: Sequence[nn.Parameter],
        acceleration: Acceleration,
    ) -> None:
        self.function, self.backward, self.parameters = function, backward, list(parameters)
        self.acceleration = acceleration
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients lie in the graph's memory, and must stay there between calls."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's outputs, detached; they are overwritten by the next call."""
        if not inputs[0].is_cuda:
            self.acceleration = "none"
        if self.acceleration != "none" and self._graph is None:
            self._capture(inputs)
        if self._graph is None:
            return self._run(self.function, inputs)
        for target, source in zip(self._inputs, inputs, strict=True):
            target.copy_(source)
        self._graph.replay()
        return self._outputs

    def release(self) -> None:
        """Give the graph's memory back, gradients included."""
        self._graph, self._inputs, self._outputs = None, (), ()
        self._forget_gradients()
        # Both know the trainer that holds this: its weights should go when it goes, not at some garbage collection.
        del self.function, self.backward

    def _run(self, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = function(*inputs)
        self.backward(outputs[0])
        return tuple(each.detach() for each in outputs)

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        """Capture the best form that works; leaves `acceleration` at what came of it."""
        started = time.monotonic()
        while self.acceleration != "none":
            compiles = self.acceleration == "compile"
            try:
                with torch._dynamo.config.patch(recompile_limit=COMPILATIONS):
                    function = torch.compile(self.function, dynamic=False) if compiles else self.function
                    self._capture_form(function, inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler's failure can be of any type
                what = "compiler" if compiles else "CUDA graph"
                logger.warning("training runs without the %s (%s: %s)", what, type(error).__name__, gist(error))
                # Those of the warm-up, or of a capture that never ran: what comes now would be added to them.
                self._forget_gradients()
                self.acceleration = "graphs" if compiles else "none"
            else:
                logger.info("the training step was captured in %.0f s", time.monotonic() - started)
                return

    def _capture_form(self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> None:
        static = tuple(each.detach().clone() for each in inputs)

        def call() -> None:
            self._forget_gradients()
            self._run(function, static)

        warm_up(call)
        # The graph keeps gradients in memory of its own: those of the warm-up must go first.
        self._forget_gradients()
        torch.cuda.empty_cache()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        with whole_capture(pool), torch.cuda.graph(graph, pool=pool):
            outputs = self._run(function, static)
        self._graph, self._inputs, self._outputs = graph, static, outputs
